"""`/health/live` and `/health/ready`: the state of all workers, whichever one answers."""

import time
from collections.abc import Container, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, get_args

from fastapi import APIRouter, Request, Response
from pydantic import BaseModel

from service.board import Board, Report, State
from service.lifecycle import Service
from service.protocols.native.schema import Error, ErrorResponse

CACHE_S = 0.2  # maximum age of other workers' reports

health = APIRouter(prefix="/health", tags=["health"])


class WorkerHealth(BaseModel):
    """The state of a worker."""

    worker: int
    process_id: int
    state: State
    reason: str
    since: datetime
    models: list[str]  # "name/version"


class Health(BaseModel):
    """The service is live or ready."""

    status: Literal["live", "ready"]
    workers: list[WorkerHealth]
    problems: dict[str, str]  # by version that is refused or damaged, such as `shop/2`


class Unhealthy(ErrorResponse):
    """The service is not live or not ready, with the reason."""

    workers: list[WorkerHealth]


class Reports:
    """The reports of all workers, with a fresh one of this worker."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._others: list[Report] = []
        self._read = -CACHE_S

    def all(self) -> list[Report]:
        """All reports, by number of the worker."""
        own, folder = self._service.report(), self._service.seat.folder
        if folder is not None and time.monotonic() - self._read >= CACHE_S:
            self._others, self._read = Board(folder).read(), time.monotonic()
        others = [report for report in self._others if report.worker != own.worker]
        return sorted([own, *others], key=lambda report: report.worker)

    def why_not_live(self) -> str:
        """Problems that a restart may solve; empty while the service is live."""
        return self._problems(self.all(), {"stalled"})

    def why_not_ready(self) -> str:
        """Reasons not to send requests here: every worker that takes requests must be ready."""
        taking = [report for report in self.all() if report.takes_requests]
        return self._problems(taking, {*get_args(State)} - {"ready"})

    def _problems(self, reports: Sequence[Report], states: Container[str]) -> str:
        settings, problems = self._service.settings, []
        for report in reports:
            place = f"worker {report.worker}: " if len(reports) > 1 else ""
            if report.is_silent(settings):
                problems.append(f"{place}no report for {report.age_s():.0f} s")
            elif report.state in states:
                problems.append(f"{place}{report.state}: {report.reason}")
        return "; ".join(problems)

    def problems(self) -> dict[str, str]:
        """Problems of versions that this worker does not serve."""
        return self._service.versions.rollout.state.problems

    def shown(self) -> list[WorkerHealth]:
        """The reports as the response shows them."""
        return [
            WorkerHealth(
                worker=report.worker,
                process_id=report.process_id,
                state=report.state,
                reason=report.reason,
                since=datetime.fromtimestamp(report.since, UTC),
                models=list(report.models),
            )
            for report in self.all()
        ]


_UNHEALTHY: dict[int | str, dict[str, Any]] = {503: {"model": Unhealthy}}


@health.get("/live", response_model=Health, responses=_UNHEALTHY)
async def live(request: Request) -> Response:
    """200 while every worker's event loop runs and computes waiting requests."""
    reports: Reports = request.app.state.reports
    return _answer("live", reports.why_not_live(), reports)


@health.get("/ready", response_model=Health, responses=_UNHEALTHY)
async def ready(request: Request) -> Response:
    """200 while the default model of every worker answers and the service is not ending."""
    reports: Reports = request.app.state.reports
    return _answer("ready", reports.why_not_ready(), reports)


def _answer(status: Literal["live", "ready"], problems: str, reports: Reports) -> Response:
    workers = reports.shown()
    body: BaseModel = Health(status=status, workers=workers, problems=reports.problems())
    if problems:
        error = Error(code=f"not_{status}", message=problems, path=[])
        body = Unhealthy(error=error, workers=workers)
    code = 503 if problems else 200
    return Response(body.model_dump_json(), code, media_type="application/json")
