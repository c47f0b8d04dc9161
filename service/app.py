"""The web application: routes of the protocols, health, metrics, and the border around requests."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from persona.contract import PersonaError
from service.board import Seat
from service.border import Border
from service.distribution import Series
from service.gate import Gate
from service.health import Reports, health
from service.lifecycle import Service
from service.logs import frames
from service.metrics import ERRORS, REQUESTS, SECONDS, exposition
from service.openapi import complete, page
from service.playground import playground
from service.protocols.exchange import CLOSE, Answer
from service.protocols.table import ROUTERS, errors_of, route_of, verb_of
from service.pulse import Pulse
from service.settings import Settings

_CAUSES = {404: "not_found", 405: "method_not_allowed", 500: "internal", 503: "not_ready"}
UNLISTED = ("/", "/playground/{name:path}", "/metrics", "/docs", "/openapi.json")  # in metrics

BROKEN = 3  # exit status of a worker whose artifacts cannot be served

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None, seat: Seat = Seat()) -> FastAPI:  # noqa: B008  # frozen
    """Creates the application; by default, settings come from the PERSONA_* variables."""
    service = Service(settings or Settings(), seat)

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with service.running():
            tasks = [
                asyncio.create_task(service.run()),
                asyncio.create_task(Pulse(service).beat()),
            ]
            if seat.holds_back:
                await service.settled()
                if not service.is_ready:
                    os._exit(
                        BROKEN
                    )  # it has logged the reason, has accepted no request, and others answer
            yield
            for task in tasks:
                task.cancel()

    app = Application(
        service,
        title="Persona",
        description="Turns click histories into user embeddings, and shows which clicks it used.",
        version=version("persona-encoder"),
        lifespan=lifespan,
        redirect_slashes=False,  # a redirect would lose the body, and has no body itself
        docs_url=None,
        redoc_url=None,
    )
    for router in (*ROUTERS, page, health):
        app.include_router(router)
    if service.settings.playground:
        app.include_router(playground)
    app.state.reports = Reports(service)
    _add_metrics(app, service)
    app.add_exception_handler(PersonaError, _answer_persona_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_exception_handler(Exception, _answer_any_error)
    return app


class Application(FastAPI):
    """FastAPI with a border, which counts and times requests and catches every exception.

    Posted bodies are answered before FastAPI's middleware and routing, which take as long as
    everything else that a short history needs: a request takes 449 function calls with them, 227
    without. Unusual requests (a prefix before the path, added middleware) go through FastAPI to
    the same `Verb.answer`.
    """

    def __init__(self, service: Service, **options: Any) -> None:
        super().__init__(**options)
        self.state.service = service
        self._service = service
        settings = service.settings
        self._border = Border.where_wanted(settings)
        self._gate = Gate(settings.keys_file, open_to_operators=settings.admin)
        self._seconds: dict[str, Series] = {}  # by route
        self._answered: dict[tuple[str, int], Counter] = {}  # by route and status

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the lifespan."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
        elif self._border is not None:
            await self._border.cross(self._answer, scope, receive, send)
        else:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        started, verb = time.perf_counter(), None
        if scope["method"] == "POST" and not self.user_middleware:
            verb = verb_of(scope["path"])
        if scope["method"] == "HEAD":  # as GET; the server omits the body
            scope = {**scope, "method": "GET"}
        answer = self._refusal(scope) if verb is None or self._gate.has_keys else None
        if answer is None and verb is not None:
            try:
                answer = await verb.answer(self._service, scope["headers"], receive)
            except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
                answer = _failed(scope, error)
        if answer is None:
            status, code = await self._through_fastapi(scope, receive, send), ""
        else:
            status, code = answer.status, answer.code
            if self._service.is_draining:
                answer = answer.closing()
            await answer.send(send)
        route = route_of(scope["path"]) if verb else getattr(scope.get("route"), "path", "other")
        self._count(route, status, code, time.perf_counter() - started)

    def _refusal(self, scope: Scope) -> Answer | None:
        """The answer to a request that the gate refuses; None if it admits the request."""
        try:
            self._gate.admit(scope)
        except PersonaError as error:
            return errors_of(scope).answer_to(error)
        return None

    async def _through_fastapi(self, scope: Scope, receive: Receive, send: Send) -> int:
        """Answers through FastAPI; returns the status of the response."""
        status = 0

        async def noting_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            if self._service.is_draining and "status" in message:
                message["headers"] = [*message.get("headers", []), CLOSE]
            await send(message)

        try:
            await super().__call__(scope, receive, noting_send)
        except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
            answer = _failed(scope, error)
            if not status:
                await answer.send(noting_send)
        return status

    def openapi(self) -> dict[str, Any]:
        """The document, with examples."""
        if self.openapi_schema is None:
            complete(super().openapi())
        return self.openapi_schema or {}

    def _count(self, route: str, status: int, code: str, seconds: float) -> None:
        if not self._seconds:
            routes = (*self.openapi()["paths"], *UNLISTED, "other")
            self._seconds.update({route: SECONDS.labels(route) for route in routes})
        if route not in self._seconds:
            route = "other"
        if (answered := self._answered.get((route, status))) is None:
            answered = self._answered[route, status] = REQUESTS.labels(route, status)
        tally = self._service.tally
        tally.count(answered)
        tally.observe(self._seconds[route], seconds)
        if status >= 400 or not status:
            tally.count(ERRORS.labels(code or _CAUSES.get(status, f"http_{status}")))


def _add_metrics(app: FastAPI, service: Service) -> None:
    @app.get("/metrics", tags=["health"], response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics, summed over the workers."""
        service.tally.flush()
        return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _failed(scope: Scope, error: Exception) -> Answer:
    """Logs an unexpected error; the client only learns that one happened."""
    # Without the query string and the error's message, because both may quote a history.
    logger.error("%s %s failed\n%s", scope["method"], scope["path"], frames(error))
    return errors_of(scope).error_answer(500, "internal", "internal error")


def _answer_any_error(request: Request, _error: Exception) -> Response:
    answer = errors_of(request.scope).error_answer(500, "internal", "internal error")
    return answer.response()


def _answer_persona_error(request: Request, error: Exception) -> Response:
    if not isinstance(error, PersonaError):
        raise error
    return errors_of(request.scope).answer_to(error).response()


def _answer_http_error(request: Request, error: Exception) -> Response:
    """Answers for the router: an unknown path, or a method that the path does not take."""
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    message = f"{request.method} {request.url.path:.100}: {error.detail.lower()}"
    code = codes.get(error.status_code, "http_error")
    answer = errors_of(request.scope).error_answer(error.status_code, code, message)
    response = answer.response()
    response.headers.update(error.headers or {})
    return response
