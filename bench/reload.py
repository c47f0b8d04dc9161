"""Version changes under load: what they cost the requests, and what they leave in memory."""

import base64
import json
import os
import shutil
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bench import encoders, loads
from bench.load import Load, closed_loop, open_loop, requests
from bench.loads import MAX_LENGTH
from bench.memory import MEGABYTE, resident_bytes
from bench.peers import Running, persona, persona_body, running
from bench.report import table, tell
from bench.results import record
from persona.artifact.format import MANIFEST, MANIFEST_CHECKSUM, Manifest
from persona.artifact.writing import write_manifest

CHANGES = 100
SHARE = 0.4  # of what the service can answer: with all of it, queues would hide what a change costs
SECONDS_BEFORE = 20.0
PROBE = [[1, 2, 3], [4, 5, 6, 7, 8]]


def reload(
    changes: Annotated[int, typer.Option(help="Of the version, one after the other.")] = CHANGES,
    seconds: Annotated[float, typer.Option(help="Without changes, before.")] = SECONDS_BEFORE,
) -> None:
    """Version changes under load: failed requests, latency, memory."""
    command = "python -m bench reload"
    with _versions(changes) as (root, coming), running(persona(root, admin="1")) as started:
        load = requests(started.server, [[row] for row in loads.histories("news", 2000)])
        rate = SHARE * closed_loop(started.port, load, 3).per_second
        without = open_loop(started.port, load, rate, seconds)
        before = resident_bytes(started)
        changer = Changer(started, root, coming)
        during = changer.under(load, rate)
        time.sleep(1)
        after = resident_bytes(started)
    failed = round(during.failed * rate * changer.seconds) + changer.wrong
    record("reload_failed", failed, 0, command)
    record("reload_memory_growth", round(after / before, 4), 1.05, command)
    ratio = during.percentile(99) / without.percentile(99)
    record("reload_p99_vs_without", round(ratio, 3), 2.0, command)
    rows = [_row("without changes", without), _row(f"{changes} changes", during)]
    about = (
        f"Two workers, {rate:,.0f} requests a second at random times, {SHARE:.0%} of what they can "
        f"answer. Changes follow each other, one in {changer.seconds / changes:.2f} s: a version "
        "is verified, proved, warm and in use in both workers, then its predecessor is deleted. "
        f"{changer.probes:,} further requests check that the answer is the named version's. "
        f"Resident memory of all processes: {before / MEGABYTE:.1f} MB before, "
        f"{after / MEGABYTE:.1f} MB after."
    )
    head = ["latency in ms", "p50", "p99", "p99.9", "requests"]
    tell("reload", "Version changes under load", f"{about}\n\n{table(head, rows)}")


def _row(name: str, load: Load) -> list[str]:
    percentiles = (f"{load.percentile(percent):.1f}" for percent in (50, 99, 99.9))
    return [name, *percentiles, f"{len(load.latencies_ms):,}"]


@dataclass
class Changer:
    """Changes the version again and again, and checks the answers meanwhile."""

    started: Running
    root: Path
    coming: list[Path]  # the folders of the versions to come
    wrong: int = 0
    probes: int = 0
    seconds: float = 0.0
    _expected: dict[int, list[str]] = field(default_factory=dict)  # by the version's parity
    _over: threading.Event = field(default_factory=threading.Event)

    def under(self, load: list[bytes], rate: float) -> Load:
        """Makes all changes while a load goes on; the load's latencies."""
        threads = [threading.Thread(target=work) for work in (self._change_all, self._probe_all)]
        for thread in threads:
            thread.start()
        since, parts = time.perf_counter(), list[Load]()
        while not self._over.is_set():
            parts.append(open_loop(self.started.port, load, rate, 5.0, seed=len(parts)))
        self.seconds = time.perf_counter() - since
        for thread in threads:
            thread.join()
        return _joined(parts)

    def _change_all(self) -> None:
        try:
            for folder in self.coming:
                model = self.root / encoders.NAME
                old = next(path for path in model.iterdir() if path.name.isdecimal())
                folder.rename(model / folder.name)
                state = self._post("/v1/models/bench/load", {})
                self.wrong += state["shares"] != {folder.name: 1.0}
                shutil.rmtree(old)
        finally:
            self._over.set()

    def _probe_all(self) -> None:
        while not self._over.is_set():
            answer = self._post("/v1/encode", json.loads(persona_body(PROBE, encoding="base64")))
            found = [user["embedding"] for user in answer["users"]]
            expected = self._expected.setdefault(int(answer["version"]) % 2, found)
            self.wrong += not _close(found, expected)
            self.probes += 1
            time.sleep(0.02)

    def _post(self, path: str, body: object) -> dict[str, Any]:
        url = f"http://127.0.0.1:{self.started.port}{path}"
        request = urllib.request.Request(url, json.dumps(body).encode())
        with urllib.request.urlopen(request, timeout=120) as answer:
            found: dict[str, Any] = json.load(answer)
            return found


def _close(found: list[str], expected: list[str]) -> bool:
    """Whether embeddings agree but for the last bits, which depend on the batch."""
    one, other = (
        np.frombuffer(b"".join(map(base64.b64decode, texts)), "<f4") for texts in (found, expected)
    )
    return bool(np.allclose(one, other, atol=1e-4))


def _joined(parts: list[Load]) -> Load:
    latencies = np.concatenate([part.latencies_ms for part in parts])
    failed = sum(part.failed for part in parts) / len(parts)
    return Load(sum(part.per_second for part in parts) / len(parts), failed, latencies)


@contextmanager
def _versions(changes: int) -> Iterator[tuple[Path, list[Path]]]:
    """A root with version 1 of `bench`, and the folders of versions 2, 3, ... beside it.

    Versions of odd and of even numbers answer differently. They share their files, by links.
    """
    kinds = [encoders.artifacts(max_length=length) for length in (MAX_LENGTH - 1, MAX_LENGTH)]
    with tempfile.TemporaryDirectory(dir=encoders.CACHE) as folder:
        waiting, root = Path(folder) / "waiting", Path(folder) / "root"
        for number in range(1, changes + 2):
            _link(kinds[number % 2] / encoders.NAME / "1", waiting / str(number), number)
        (root / encoders.NAME).mkdir(parents=True)
        (waiting / "1").rename(root / encoders.NAME / "1")
        yield root, [waiting / str(number) for number in range(2, changes + 2)]


def _link(source: Path, target: Path, number: int) -> None:
    shutil.copytree(source, target, copy_function=os.link)
    manifest = Manifest.model_validate_json((source / MANIFEST).read_bytes())
    for name in (MANIFEST, MANIFEST_CHECKSUM):
        (target / name).unlink()
    write_manifest(target, manifest.model_copy(update={"version": str(number)}))
