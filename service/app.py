"""The web application: routes, errors in one shape, metrics around every request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

import orjson
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from service.errors import Overloaded, ServiceError
from service.lifecycle import Service
from service.logs import frames
from service.metrics import REQUESTS, SECONDS
from service.routes import bodies, plain
from service.settings import Settings

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; without settings, from the environment's PERSONA_* variables."""
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load())
        with service.running():
            yield
        loading.cancel()

    app = FastAPI(
        title="Persona",
        description="Turns click histories into user embeddings, and shows what it looked at.",
        version=version("persona-encoder"),
        lifespan=lifespan,
    )
    app.state.service = service
    app.include_router(bodies)
    app.include_router(plain)
    app.add_exception_handler(ServiceError, _answer_service_error)
    app.add_exception_handler(HTTPException, _answer_http_error)
    app.add_middleware(_Border, routes=frozenset(app.openapi()["paths"]))
    return app


def _error(status: int, code: str, message: str, path: tuple[str | int, ...] = ()) -> Response:
    error = {"code": code, "message": message, "path": path}
    return Response(orjson.dumps({"error": error}), status, media_type="application/json")


def _answer_service_error(_request: Request, error: Exception) -> Response:
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


class _Border:
    """The outermost border of a request: counts it, times it, and lets no exception out."""

    def __init__(self, app: ASGIApp, routes: frozenset[str]) -> None:
        self._app = app
        self._routes = routes | {"/metrics", "/docs", "/openapi.json"}
        self._seconds = {route: SECONDS.labels(route) for route in (*self._routes, "other")}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), 0

        async def counting_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)

        try:
            await self._app(scope, receive, counting_send)
        except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
            _log_failure(scope, error)
            if not status:
                await _error(500, "internal", "internal error")(scope, receive, counting_send)
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._seconds[route].observe(time.perf_counter() - started)
        REQUESTS.labels(route, status).inc()
