"""The metrics for Prometheus, summed over all workers.

With several workers `persona serve` sets PROMETHEUS_MULTIPROC_DIR, a folder with the mapped
values of each worker. Any worker sums them.
"""

import asyncio
import logging
import os
import shutil
import struct
from collections import defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    generate_latest,
    multiprocess,
)
from prometheus_client.mmap_dict import MmapedDict

from persona.engine.batcher import RunStats
from persona.engine.model import Model
from service.distribution import Distribution, Joined, Series

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
FLUSH_S = 0.1  # delay until the other workers see the counts

logger = logging.getLogger(__name__)

TIMES_S = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

REQUESTS = Counter("persona_requests", "Answered requests", ["route", "status"])
ERRORS = Counter("persona_errors", "Requests that were refused or failed, by cause", ["code"])
SECONDS = Distribution(
    "persona_request_seconds",
    "From the request's headers to the response's last byte",
    "route",
    TIMES_S,
)
_VERSION = ["model", "version"]
QUEUE_SECONDS = Distribution(
    "persona_queue_seconds", "Waiting time of the first history of each run", "model", TIMES_S
)
RUN_SECONDS = Distribution("persona_run_seconds", "Computing time of a run", "model", TIMES_S)
RUN_TOKENS = Distribution(
    "persona_run_tokens",
    "Tokens of a run, including padding",
    "model",
    (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192),
)
HISTORY_LENGTH = Distribution(
    "persona_history_length",
    "Clicks of a history that the encoder read",
    "model",
    (0, 1, 2, 3, 5, 10, 20, 50, 100, 200, 500, 1000),
)
DISTRIBUTIONS = (SECONDS, QUEUE_SECONDS, RUN_SECONDS, RUN_TOKENS, HISTORY_LENGTH)
RUNS = Counter("persona_runs", "Runs of a graph", _VERSION)
HISTORIES = Counter("persona_histories", "Histories computed", _VERSION)
REAL_TOKENS = Counter("persona_real_tokens", "Tokens computed, without padding", _VERSION)
COMPUTED_TOKENS = Counter("persona_computed_tokens", "Tokens computed, with padding", _VERSION)
SEARCH_STEPS = Counter("persona_search_steps", "Steps of searches", _VERSION)
FOUND_HISTORIES = Counter(
    "persona_found_histories",
    "Histories that were looked for among those kept: whole, continued or new",
    [*_VERSION, "outcome"],
)
FOUND_CLICKS = Counter(
    "persona_found_clicks",
    "Clicks of those histories: saved or computed",
    [*_VERSION, "outcome"],
)
KEPT_BYTES = Gauge(
    "persona_kept_bytes", "Bytes of kept histories", _VERSION, multiprocess_mode="livesum"
)
KEPT_HISTORIES = Gauge(
    "persona_kept_histories", "Histories that are kept", _VERSION, multiprocess_mode="livesum"
)
QUEUED_TOKENS = Gauge(
    "persona_queued_tokens", "Waiting tokens", _VERSION, multiprocess_mode="livesum"
)
LOADED = Gauge(
    "persona_loaded_versions",
    "Workers that have this version loaded",
    _VERSION,
    multiprocess_mode="livesum",
)
BROKEN = Gauge(
    "persona_broken_artifacts",
    "1 if a version is refused or damaged",
    _VERSION,
    multiprocess_mode="livemax",
)
ROLLOUTS = Counter(
    "persona_rollouts", "Versions loaded, unloaded and refused", ["model", "outcome"]
)
CUT = Counter(
    "persona_cut_connections", "Connections that were closed because of a limit", ["cause"]
)
READY = Gauge("persona_ready_workers", "Workers that are ready", multiprocess_mode="livesum")
RESTARTS = Counter("persona_worker_restarts", "Workers that were replaced, by cause", ["cause"])


class Tally:
    """Collects the counts of one event loop, and adds them to Prometheus' counters together.

    Each addition to a counter in a shared file takes a microsecond.
    """

    def __init__(self, models: Callable[[], Iterable[Model]] = tuple) -> None:
        """Takes what tells which models are loaded, whose kept histories count."""
        self._models = models
        self._keeping: set[tuple[str, str]] = set()  # models and versions
        self._counts: defaultdict[Counter, float] = defaultdict(float)
        self._queued: dict[tuple[str, str], int] = {}  # tokens, by model and version
        self._turns_s: dict[str, float] = {}

    def count(self, counter: Counter, amount: float = 1) -> None:
        """Adds to a counter, given with its labels."""
        if not self._counts:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._counts[counter] += amount

    def observe(self, series: Series, value: float) -> None:
        """Adds a value to a histogram."""
        self.count(series.bucket(value))
        self._counts[series.total] += value

    def add_run(self, model: str, version: str, stats: RunStats) -> None:
        """Counts a run of a graph, or a step of searches."""
        self._queued[model, version] = stats.queued_tokens
        if not isinstance(stats.group, str):  # the name of a graph
            self.count(SEARCH_STEPS.labels(model, version))
            return
        self.count(RUNS.labels(model, version))
        self.count(HISTORIES.labels(model, version), stats.histories)
        self.count(REAL_TOKENS.labels(model, version), stats.tokens)
        self.count(COMPUTED_TOKENS.labels(model, version), stats.computed_tokens)
        self.observe(RUN_TOKENS.labels(model), stats.computed_tokens)
        self.observe(QUEUE_SECONDS.labels(model), stats.queued_s)
        self.observe(RUN_SECONDS.labels(model), stats.computed_s)
        self._turns_s[model] = stats.turn_s

    def turn_s(self, model: str) -> float:
        """Duration of the model's newest runs, which gave the current answer."""
        return self._turns_s.get(model, 0.0)

    def flush(self) -> None:
        """Adds everything to Prometheus' counters."""
        for counter, amount in self._counts.items():
            counter.inc(amount)
        for name, tokens in self._queued.items():
            QUEUED_TOKENS.labels(*name).set(tokens)
        self._flush_kept()
        self._counts.clear()
        self._queued.clear()

    def _flush_kept(self) -> None:
        gone, self._keeping = self._keeping, set()
        for model in self._models():
            if (kept := model.kept) is None:
                continue
            name = (model.manifest.name, model.manifest.version)
            self._keeping.add(name)
            KEPT_BYTES.labels(*name).set(kept.bytes)
            KEPT_HISTORIES.labels(*name).set(len(kept))
            counts = kept.take_counts()
            for outcome in ("whole", "continued", "new"):
                FOUND_HISTORIES.labels(*name, outcome).inc(getattr(counts, outcome))
            FOUND_CLICKS.labels(*name, "saved").inc(counts.saved_clicks)
            FOUND_CLICKS.labels(*name, "computed").inc(counts.computed_clicks)
        for name in gone - self._keeping:
            KEPT_BYTES.labels(*name).set(0)
            KEPT_HISTORIES.labels(*name).set(0)

    def totals(self) -> dict[tuple[str, str, str], int]:
        """Counts of all workers since the start, by the metric's name, model and version."""
        self.flush()
        samples = (sample for metric in _all_workers().collect() for sample in metric.samples)
        totals: defaultdict[tuple[str, str, str], int] = defaultdict(int)
        for sample in samples:
            labels = sample.labels
            if {"model", "version"} <= labels.keys():
                totals[sample.name, labels["model"], labels["version"]] += int(sample.value)
        return totals


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(Joined(_all_workers(), DISTRIBUTIONS))
    return generate_latest(registry)


def _all_workers() -> CollectorRegistry:
    if MULTIPROCESS_FOLDER not in os.environ:
        return REGISTRY
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the package is half typed
    return registry


def forget_worker(process_id: int) -> None:
    """Removes an ended worker from the gauges, and moves its counts into one set of files.

    Otherwise, `/metrics` would read the files of every worker that ever ran.
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
    new = kept.with_suffix(".new")  # hidden from concurrent readers of the metrics
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
