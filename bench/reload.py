"""Version changes under load: what they cost the requests, and what they leave in memory."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Annotated

import numpy as np
import typer

from bench import encoders, loads
from bench.changes import Outcome, apart, change
from bench.load import Load, closed_loop, open_loop, requests
from bench.memory import MEGABYTE, resident_bytes
from bench.peers import Running, persona, running
from bench.report import table, tell
from bench.results import record
from persona.artifact.format import MANIFEST, MANIFEST_CHECKSUM, Manifest
from persona.artifact.writing import write_manifest

CHANGES, ROUNDS = 100, 10
SHARE = 0.4  # of what the service can answer: with all of it, queues would hide what a change costs
PIECE_S = 2.0


def reload(
    changes: Annotated[int, typer.Option(help="Of the version, in all rounds.")] = CHANGES,
    rounds: Annotated[int, typer.Option(help="Without changes, then with them.")] = ROUNDS,
    seconds: Annotated[float, typer.Option(help="Of each round without.")] = 5.0,
) -> None:
    """Version changes under load: failed requests, latency, memory."""
    command = "python -m bench reload"
    with versions(changes) as (root, coming), running(persona(root, admin="1")) as started:
        load = requests(started.server, [[row] for row in loads.histories("news", 2000)])
        rate = SHARE * closed_loop(started.port, load, 3).per_second
        before = resident_bytes(started)
        with apart() as other:
            round_ = _Rounds(started, root / encoders.NAME, load, rate, other)
            for part in np.array_split(np.array(coming, object), rounds):
                round_.play([], seconds)
                round_.play(list(part), seconds)
        after = resident_bytes(started)
    record("reload_failed", round_.failed, 0, command)
    record("reload_memory_growth", round(after / before, 4), 1.05, command)
    ratio = median(b.percentile(99) / a.percentile(99) for a, b in round_.pairs())
    record("reload_p99_vs_without", round(ratio, 3), 2.0, command)
    without, during = map(_joined, zip(*round_.pairs(), strict=True))
    about = (
        f"Two workers, {rate:,.0f} requests a second at random times, {SHARE:.0%} of what they can "
        f"answer. {rounds} rounds, without changes and then with them, one right after the other, "
        f"{round_.seconds / changes:.2f} s each: a version is verified, proved, warm and in use in "
        "both workers, then its predecessor is deleted. The figure is the median of the rounds' "
        f"ratios of p99. {round_.probes:,} further requests check that an answer is that of the "
        f"version which it names. Resident memory of all processes: {before / MEGABYTE:.1f} MB "
        f"before, {after / MEGABYTE:.1f} MB after."
    )
    head = ["latency in ms", "p50", "p99", "p99.9", "requests"]
    rows = [_row("without changes", without), _row(f"{changes} changes", during)]
    tell("reload", "Version changes under load", f"{about}\n\n{table(head, rows)}")


class _Rounds:
    """Loads without changes and with them, in turn."""

    def __init__(
        self, started: Running, model: Path, load: list[bytes], rate: float, other: Executor
    ) -> None:
        self._started, self._model, self._load, self._rate = started, model, load, rate
        self._other = other
        self._played: list[Load] = []
        self._outcome = Outcome()
        self.failed = self.probes = 0
        self.seconds = 0.0  # of changes

    def play(self, coming: list[Path], seconds: float) -> None:
        """Loads the service until all changes are made, or for so long."""
        arguments = (self._started.port, self._model, coming, seconds, self._outcome.expected)
        made, parts = self._other.submit(change, *arguments), list[Load]()
        while not made.done():
            seed = len(self._played) * 1000 + len(parts)
            parts.append(open_loop(self._started.port, self._load, self._rate, PIECE_S, seed=seed))
        self._outcome = made.result()
        failed = sum(round(part.failed * self._rate * PIECE_S) for part in parts)
        self.failed += failed + self._outcome.wrong
        self.probes += self._outcome.probes
        self.seconds += self._outcome.seconds if coming else 0
        self._played.append(_joined(parts))

    def pairs(self) -> list[tuple[Load, Load]]:
        """The figures of each round, without changes and with them."""
        return list(zip(self._played[::2], self._played[1::2], strict=True))


def _joined(parts: "list[Load] | tuple[Load, ...]") -> Load:
    latencies = np.concatenate([part.latencies_ms for part in parts])
    failed = sum(part.failed for part in parts) / len(parts)
    return Load(sum(part.per_second for part in parts) / len(parts), failed, latencies)


def _row(name: str, load: Load) -> list[str]:
    percentiles = (f"{load.percentile(percent):.1f}" for percent in (50, 99, 99.9))
    return [name, *percentiles, f"{len(load.latencies_ms):,}"]


@contextmanager
def versions(changes: int) -> Iterator[tuple[Path, list[Path]]]:
    """A root with version 1 of `bench`, and the folders of versions 2, 3, ... beside it.

    Versions of odd and of even numbers answer differently. They share their files, by links.
    """
    kinds = [encoders.artifacts(seed=seed) for seed in (0, 1)]
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
