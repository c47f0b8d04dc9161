"""What `/metrics` tells Prometheus, added up over all workers.

With several workers `persona serve` sets PROMETHEUS_MULTIPROC_DIR, a folder that each worker maps
its values into; whichever worker is asked adds them up.
"""

import asyncio
import logging
import os
import shutil
import struct
from collections import Counter as Counts
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)
from prometheus_client.mmap_dict import MmapedDict

from persona.engine.batcher import RunStats

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
FLUSH_S = 0.02  # how much later the other workers see what this one counted

logger = logging.getLogger(__name__)

REQUESTS = Counter("persona_requests", "Answered requests", ["route", "status"])
SECONDS = Histogram(
    "persona_request_seconds",
    "From the request's headers to the response's last byte",
    ["route"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
RUNS = Counter("persona_runs", "Runs of a graph", ["model"])
HISTORIES = Counter("persona_histories", "Histories computed", ["model"])
REAL_TOKENS = Counter("persona_real_tokens", "Tokens computed, without padding", ["model"])
COMPUTED_TOKENS = Counter("persona_computed_tokens", "Tokens computed, with padding", ["model"])
QUEUED_TOKENS = Gauge(
    "persona_queued_tokens", "Tokens that wait", ["model"], multiprocess_mode="livesum"
)
CUT = Counter("persona_cut_connections", "Connections that were ended for a limit", ["cause"])
READY = Gauge("persona_ready_workers", "Workers that are ready", multiprocess_mode="livesum")
RESTARTS = Counter("persona_worker_restarts", "Workers that were replaced, by cause", ["cause"])


class Tally:
    """Adds up what one event loop counts, and hands it to Prometheus' counters in one go.

    In a file that workers share, a counter takes a microsecond to count one.
    """

    def __init__(self) -> None:
        self._counts: Counts[Counter] = Counts()
        self._queued: dict[str, int] = {}  # tokens, by model

    def count(self, counter: Counter, amount: int = 1) -> None:
        """Adds to a counter, which has its labels."""
        if not self._counts:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._counts[counter] += amount

    def add_run(self, model: str, stats: RunStats) -> None:
        """Counts one run of a graph."""
        self.count(RUNS.labels(model))
        self.count(HISTORIES.labels(model), stats.histories)
        self.count(REAL_TOKENS.labels(model), stats.tokens)
        self.count(COMPUTED_TOKENS.labels(model), stats.computed_tokens)
        self._queued[model] = stats.queued_tokens

    def flush(self) -> None:
        """Makes all of it known."""
        for counter, amount in self._counts.items():
            counter.inc(amount)
        for model, tokens in self._queued.items():
            QUEUED_TOKENS.labels(model).set(tokens)
        self._counts.clear()
        self._queued.clear()


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    if MULTIPROCESS_FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the package is half typed
    return generate_latest(registry)


def forget_worker(process_id: int) -> None:
    """Takes a worker that has ended out of the gauges, and its counts over into one set of files.

    Otherwise `/metrics` would read the files of every worker that there ever was.
    """
    folder = os.environ.get(MULTIPROCESS_FOLDER)
    if folder is None:
        return
    multiprocess.mark_process_dead(process_id)  # type: ignore[no-untyped-call]  # the package is half typed
    for path in Path(folder).glob(f"*_{process_id}.db"):
        kind = path.name.removesuffix(f"_{process_id}.db")
        kept = path.with_name(f"{kind}_0.db")  # no worker has that process id
        if kind.startswith("gauge"):
            path.unlink()
        else:
            _add(path, kept)


def _add(path: Path, kept: Path) -> None:
    """Adds a file's counts to another's, and removes it."""
    new = kept.with_suffix(".new")  # no metrics for whoever reads in between
    if kept.exists():
        shutil.copyfile(kept, new)
    sums = MmapedDict(str(new))  # type: ignore[no-untyped-call]  # the package is half typed
    try:
        for key, value, *_ in MmapedDict.read_all_values_from_file(str(path)):  # type: ignore[no-untyped-call]  # the same
            sums.write_value(key, sums.read_value(key)[0] + value, 0.0)  # type: ignore[no-untyped-call]  # the same
    except (RuntimeError, struct.error, UnicodeDecodeError) as error:
        logger.warning("some counts of a worker that ended are lost: %s: %s", path.name, error)
    finally:
        sums.close()  # type: ignore[no-untyped-call]  # the same
    new.replace(kept)
    path.unlink()
