"""The web application: routes, errors in one shape, metrics around every request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import orjson
from fastapi import FastAPI, Request, Response
from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send

from service.errors import Overloaded, Place, ServiceError
from service.lifecycle import Service
from service.logs import frames
from service.metrics import REQUESTS, SECONDS
from service.routes import Caller, JsonRoute, bodies, plain
from service.settings import Settings

logger = logging.getLogger(__name__)

Answer = tuple[int, list[tuple[bytes, bytes]], bytes]  # status, headers, body
JSON = (b"content-type", b"application/json")


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; without settings, from the environment's PERSONA_* variables."""
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with service.running():
            loading = asyncio.create_task(service.load())
            yield
            loading.cancel()

    app = _Application(
        title="Persona",
        description="Turns click histories into user embeddings, and shows what it looked at.",
        version=version("persona-encoder"),
        lifespan=lifespan,
    )
    app.service = service
    app.include_router(bodies)
    app.include_router(plain)
    app.add_exception_handler(ServiceError, _answer_service_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.open_border()
    return app


class _Application(FastAPI):
    """FastAPI with a border around it, and a short way through it for posted bodies.

    The border counts and times each request and lets no exception out. FastAPI's own way to an
    endpoint, and its objects for a request and a response, cost more than all that is done for a
    short history, so bodies take the short one; their routes are still FastAPI's, for the
    documentation and for the methods that they refuse.
    """

    service: Service

    def open_border(self) -> None:
        """Takes the routes as they are now; call it when all are there."""
        self._direct = {
            route.path: route for route in bodies.routes if isinstance(route, JsonRoute)
        }
        routes = (*self.openapi()["paths"], "/metrics", "/docs", "/openapi.json", "other")
        self._seconds = {route: SECONDS.labels(route) for route in routes}
        self._answered: dict[tuple[str, int], Counter] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request, or runs the lifespan."""
        if scope["type"] != "http":
            await super().__call__(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def noting_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            route = self._direct.get(scope["path"]) if scope["method"] == "POST" else None
            if route is None:
                await super().__call__(scope, receive, noting_send)
            else:
                caller = Caller(self.service, receive)
                status, headers, content = await _answer(route, scope, caller)
                await send({"type": "http.response.start", "status": status, "headers": headers})
                await send({"type": "http.response.body", "body": content})
        except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
            _log_failure(scope, error)
            if not status:
                await _error(500, "internal", "internal error")(scope, receive, noting_send)
        self._count(scope["path"], status, time.perf_counter() - started)

    def _count(self, path: str, status: int, seconds: float) -> None:
        route = path if path in self._seconds else "other"
        answered = self._answered.get((route, status))
        if answered is None:
            answered = self._answered[route, status] = REQUESTS.labels(route, status)
        self.service.tally.answered(answered, self._seconds[route], seconds)


async def _answer(route: JsonRoute, scope: Scope, caller: Caller) -> Answer:
    try:
        content = await route.answer(scope, caller)
    except ServiceError as error:
        refusal = _answer_service_error(None, error)
        return refusal.status_code, refusal.raw_headers, bytes(refusal.body)
    return 200, [(b"content-length", b"%d" % len(content)), JSON], content


def _error(status: int, code: str, message: str, path: Place = ()) -> Response:
    error = {"code": code, "message": message, "path": path}
    return Response(orjson.dumps({"error": error}), status, media_type="application/json")


def _answer_service_error(_request: Request | None, error: Exception) -> Response:
    if not isinstance(error, ServiceError):
        raise error
    response = _error(error.status, error.code, error.message, error.path)
    if isinstance(error, Overloaded):
        response.headers["Retry-After"] = "1"
    return response


def _answer_http_error(request: Request, error: Exception) -> Response:
    """What the router refuses: an unknown path, a method that the path does not take."""
    if not isinstance(error, HTTPException):
        raise error
    codes = {404: "not_found", 405: "method_not_allowed"}
    message = f"{request.method} {request.url.path}: {error.detail.lower()}"
    response = _error(error.status_code, codes.get(error.status_code, "http_error"), message)
    response.headers.update(error.headers or {})
    return response


def _log_failure(scope: Scope, error: Exception) -> None:
    # Without the query string and without the error's message: either may quote a history.
    logger.error("%s %s failed\n%s", scope["method"], scope["path"], frames(error))
