"""How long infer requests take, by the names of the protocol's statistics; all workers add up."""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from time import perf_counter_ns, time
from typing import Literal

from prometheus_client import Counter, Gauge

from persona.engine.model import Model
from service.lifecycle import Service

Stage = Literal["compute_input", "queue", "compute_infer", "compute_output"]

_VERSION = ["model", "version"]
COUNTS = {
    "success": Counter("persona_infer_success", "Answered infer requests", _VERSION),
    "fail": Counter("persona_infer_fail", "Infer requests that failed", _VERSION),
}
NANOSECONDS = {
    name: Counter(f"persona_infer_{name}_nanoseconds", about, _VERSION)
    for name, about in {
        "success": "From the body's last byte to the answer",
        "fail": "From the body's last byte to the error",
        "queue": "Waiting for a run",
        "compute_input": "Reading the tensors",
        "compute_infer": "Computing the runs that a request was in",
        "compute_output": "Writing the tensors",
    }.items()
}
LAST = Gauge(
    "persona_last_infer_milliseconds",
    "Unix time of the newest infer request",
    _VERSION,
    multiprocess_mode="max",
)


@dataclass(frozen=True, slots=True)
class _Counters:
    """Those of one version of a model: each look-up by labels takes a microsecond."""

    counts: Mapping[str, Counter]
    nanoseconds: Mapping[str, Counter]
    last: Gauge


@cache
def _counters(model: str, version: str) -> _Counters:
    return _Counters(
        {name: counter.labels(model, version) for name, counter in COUNTS.items()},
        {name: counter.labels(model, version) for name, counter in NANOSECONDS.items()},
        LAST.labels(model, version),
    )


class Timing(AbstractContextManager["Timing"]):
    """The time of one infer request, which is counted at its end."""

    def __init__(self, service: Service, model: Model, started: int) -> None:
        """Begins with reading the tensors; `started` is of `perf_counter_ns`."""
        self._tally, self._model = service.tally, model.manifest.name
        self._counters = _counters(self._model, model.manifest.version)
        self._started = self._last = started
        self._took: dict[Stage, int] = {}

    def end(self, stage: Stage) -> None:
        """Ends a stage; the next one begins."""
        now = perf_counter_ns()
        self._took[stage], self._last = now - self._last, now

    def end_computed(self) -> None:
        """Ends the time in the queue and that of the runs, which just gave the answer."""
        self.end("queue")
        waited = self._took["queue"]
        self._took["compute_infer"] = min(waited, round(self._tally.turn_s(self._model) * 1e9))
        self._took["queue"] = waited - self._took["compute_infer"]

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        counters, count = self._counters, self._tally.count
        if kind is None:
            outcome = "success"
            for stage, took in self._took.items():
                count(counters.nanoseconds[stage], took)
        else:
            outcome = "fail"
        count(counters.counts[outcome])
        count(counters.nanoseconds[outcome], perf_counter_ns() - self._started)
        counters.last.set(time() * 1000 // 1)
