"""A long mixed load: does the service grow? All protocols, faults, and versions that change.

Nothing may be left of a request, a connection or a version: memory, descriptors, threads and tasks
are watched over the whole time. Workers are not killed here, as a new one would hide a leak.
"""

import re
import shutil
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from pathlib import Path
from statistics import median
from typing import Annotated

import typer

from bench import encoders
from bench.changes import change
from bench.memory import MEGABYTE, proportional_bytes
from bench.mixed import MixedLoad
from bench.peers import Running, persona, running
from bench.pictures import Panel, Picture, keep
from bench.reload import versions
from bench.report import table, tell
from bench.results import record

CLIENTS = 6
CHANGE_EVERY_S = 15.0
BROKEN_EVERY = 4  # changes
SAMPLES = 240
PART = 6  # the second sixth of the time is compared with the last


@dataclass(frozen=True)
class Sample:
    """The memory, descriptors and threads of the processes."""

    seconds: float
    megabytes: float  # PSS: pages that they share count once
    descriptors: int
    threads: int
    tasks: int


def soak(
    minutes: Annotated[float, typer.Option(help="Of the load.", min=0.1)] = 30.0,
) -> None:
    """A mixed load of everything for half an hour: growth of memory and of all else."""
    seconds = minutes * 60
    changes = 1 + int(seconds / CHANGE_EVERY_S)
    with (
        versions(changes) as (root, coming),
        running(persona(root, admin="1", deadline_ms="2000")) as started,
    ):
        load, changing = MixedLoad(started.port, CLIENTS), _Changes(started, root, coming)
        try:
            samples = _watch(started, seconds)
        finally:
            changing.stop()
            load.stop()
    growth = {field.name: _growth(samples, field.name) for field in fields(Sample)[1:]}
    command = f"python -m bench soak --minutes {minutes:g}"
    record("soak_memory_growth", round(growth["megabytes"], 4), 1.05, command)
    typer.echo(f"growth {growth}, unexpected {load.unexpected()}, {dict(changing.outcomes)}")
    tell("soak", "A long mixed load", _section(samples, growth, load, changing, minutes))


class _Changes:
    """Versions that come and go, one in `BROKEN_EVERY` of them with a damaged one before it."""

    def __init__(self, started: Running, root: Path, coming: Sequence[Path]) -> None:
        self.outcomes: Counter[str] = Counter()
        self._port, self._model = started.port, root / encoders.NAME
        self._coming, self._over = coming, threading.Event()
        self._thread = threading.Thread(target=self._play)
        self._thread.start()

    def stop(self) -> None:
        """Waits for the change that is under way."""
        self._over.set()
        self._thread.join()

    def _play(self) -> None:
        expected: dict[int, list[str]] = {}
        for number, folder in enumerate(self._coming):
            if self._over.wait(CHANGE_EVERY_S):
                return
            if number % BROKEN_EVERY == 0:
                self._damage(folder)
            outcome = change(self._port, self._model, [folder], 0, expected)
            expected = outcome.expected
            self.outcomes["changed"] += 1
            self.outcomes["probes"] += outcome.probes
            self.outcomes["wrong"] += outcome.wrong

    def _damage(self, good: Path) -> None:
        """Offers a damaged copy of a version, which must be refused, and takes it away again."""
        broken = shutil.copytree(good, good.with_name(f".{good.name}"))
        path = broken / "weights.bin"
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        offered = broken.rename(self._model / str(10**6 + int(good.name)))
        url = f"http://127.0.0.1:{self._port}/v1/models/{self._model.name}/load"
        try:
            with urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=120) as answer:
                refused = offered.name.encode() in answer.read().partition(b'"refused"')[2]
        except urllib.error.HTTPError as error:
            refused = error.code == 409
            error.close()
        shutil.rmtree(offered)
        self.outcomes["refused" if refused else "wrong"] += 1


def _watch(started: Running, seconds: float) -> list[Sample]:
    began, samples = time.perf_counter(), list[Sample]()
    while (now := time.perf_counter() - began) < seconds:
        samples.append(_sample(started, now))
        time.sleep(max(0.2, min(seconds - now, seconds / SAMPLES)))
    return samples


def _sample(started: Running, now: float) -> Sample:
    processes = started.processes()
    threads = descriptors = 0
    for number in processes:
        status = Path(f"/proc/{number}/status").read_text()
        threads += int(re.findall(r"^Threads:\s+(\d+)$", status, re.MULTILINE)[0])
        descriptors += len(list(Path(f"/proc/{number}/fd").iterdir()))
    tasks = 0.0
    with suppress(OSError):  # a busy service may be late with its metrics
        found = re.findall(r"^persona_tasks (\S+)$", started.get("/metrics"), re.MULTILINE)
        tasks = float(found[0])
    megabytes = proportional_bytes(started) / MEGABYTE
    return Sample(now, megabytes, descriptors, threads, round(tasks))


def _growth(samples: Sequence[Sample], name: str) -> float:
    """Median of the last sixth over that of the second; the first is for warming up."""
    size = max(1, len(samples) // PART)
    values = [float(getattr(sample, name)) for sample in samples]
    return median(values[-size:]) / max(1.0, median(values[size : 2 * size]))


def _section(
    samples: Sequence[Sample],
    growth: Mapping[str, float],
    load: MixedLoad,
    changing: _Changes,
    minutes: float,
) -> str:
    answers = sum(count for name, count in load.outcomes.items() if name.isdecimal())
    changes = changing.outcomes
    about = (
        f"Two workers for {minutes:g} minutes under {CLIENTS} clients that use every route and "
        "protocol, send broken and hostile requests and go away in the middle of them: "
        f"{answers:,} answers, {load.outcomes['went away']:,} clients that went away, "
        f"{load.outcomes['hostile']:,} hostile inputs, {sum(load.unexpected().values()):,} "
        f"unexpected outcomes. {changes['changed']} versions took over meanwhile, "
        f"{changes['refused']} damaged ones were refused, and of {changes['probes']:,} probes "
        f"{changes['wrong']} had a wrong answer. Growth: the median of the last sixth of the time "
        "over that of the second. Memory is PSS of all processes."
    )
    rows = [
        [name, *(f"{getattr(one, name):,.0f}" for one in _shown(samples)), f"{growth[name]:.3f}"]
        for name in growth
    ]
    head = ["", "at the start", "in the middle", "at the end", "growth"]
    return f"{about}\n\n{table(head, rows)}\n\n{_plot(samples)}"


def _shown(samples: Sequence[Sample]) -> tuple[Sample, Sample, Sample]:
    return samples[0], samples[len(samples) // 2], samples[-1]


def _plot(samples: Sequence[Sample]) -> str:
    def line(name: str) -> list[tuple[float, float]]:
        return [(round(one.seconds / 60, 3), round(getattr(one, name), 1)) for one in samples]

    counted = ("descriptors", "threads", "tasks")
    panels = [
        Panel("MB", {"memory": line("megabytes")}),
        Panel("of all processes", {name: line(name) for name in counted}),
    ]
    about = "memory, descriptors, threads and tasks over minutes"
    return keep("soak", Picture("minutes", panels), about)
