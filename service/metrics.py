"""What `/metrics` tells Prometheus, added up over all workers.

With several workers `persona serve` sets PROMETHEUS_MULTIPROC_DIR, a folder that each worker
maps its values into; whichever worker is asked sums them.
"""

import asyncio
import collections
import os
from bisect import bisect_left
from collections.abc import Callable, Sequence

from prometheus_client import (
    REGISTRY,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
    multiprocess,
)

MULTIPROCESS_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
FLUSH_S = 0.02  # a worker tells the others what it counted this much later


class Durations(Histogram):
    """A histogram that is told of many observations at once: `observe` takes 2 µs for each."""

    def observe_all(self, amounts: Sequence[float]) -> None:
        """Observes each of the amounts."""
        self._sum.inc(sum(amounts))
        buckets = (bisect_left(self._upper_bounds, amount) for amount in amounts)
        for bucket, n in collections.Counter(buckets).items():
            self._buckets[bucket].inc(n)


REQUESTS = Counter("persona_requests", "Answered requests", ["route", "status"])
SECONDS = Durations(
    "persona_request_seconds",
    "From the request's headers to the response's last byte",
    ["route"],
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0),
)
RUNS = Counter("persona_runs", "Runs of a graph", ["model"])
HISTORIES = Counter("persona_histories", "Histories computed", ["model"])
REAL_TOKENS = Counter("persona_real_tokens", "Tokens computed, without padding", ["model"])
QUEUED_TOKENS = Gauge(
    "persona_queued_tokens", "Tokens that wait", ["model"], multiprocess_mode="livesum"
)
COMPUTED_TOKENS = Counter("persona_computed_tokens", "Tokens computed, with padding", ["model"])
READY = Gauge("persona_ready_workers", "Workers that are ready", multiprocess_mode="livesum")


class Tally:
    """Adds up what one event loop counts, and hands it to Prometheus' counters in one go.

    In a file that workers share, a counter takes a microsecond to count one.
    """

    def __init__(self) -> None:
        self._counted: dict[Counter, int] = {}
        self._seen: dict[Gauge, int] = {}
        self._observed: dict[Durations, list[float]] = collections.defaultdict(list)

    def count(self, counter: Counter, amount: int = 1) -> None:
        """Adds to a counter."""
        if not self._counted:
            asyncio.get_running_loop().call_later(FLUSH_S, self.flush)
        self._counted[counter] = self._counted.get(counter, 0) + amount

    def answered(self, requests: Counter, duration: Durations, seconds: float) -> None:
        """Counts a request and how long it took."""
        self.count(requests)
        self._observed[duration].append(seconds)

    def flush(self) -> None:
        """Makes all of it known."""
        for counter, amount in self._counted.items():
            counter.inc(amount)
        for gauge, value in self._seen.items():
            gauge.set(value)
        for durations, seconds in self._observed.items():
            durations.observe_all(seconds)
        self._counted.clear()
        self._seen.clear()
        self._observed.clear()

    def of_runs(self, model: str) -> Callable[[int, int, int, int], None]:
        """What a model's batcher calls after each run: with what the run took and left."""
        runs, histories = RUNS.labels(model), HISTORIES.labels(model)
        real, computed = REAL_TOKENS.labels(model), COMPUTED_TOKENS.labels(model)
        queued = QUEUED_TOKENS.labels(model)

        def on_run(
            n_histories: int, real_tokens: int, computed_tokens: int, queued_tokens: int
        ) -> None:
            self.count(runs)
            self.count(histories, n_histories)
            self.count(real, real_tokens)
            self.count(computed, computed_tokens)
            self._seen[queued] = queued_tokens

        return on_run


def exposition() -> bytes:
    """All metrics in Prometheus' text format."""
    if MULTIPROCESS_FOLDER not in os.environ:
        return generate_latest(REGISTRY)
    registry = CollectorRegistry()
    multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]  # the package is half typed
    return generate_latest(registry)


def forget_worker() -> None:
    """Takes this worker's gauges out of the sums when it ends."""
    if MULTIPROCESS_FOLDER in os.environ:
        multiprocess.mark_process_dead(os.getpid())  # type: ignore[no-untyped-call]  # the package is half typed
