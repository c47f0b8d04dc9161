"""The web application: routes, errors in one shape, metrics around every request."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Mapping
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
from service.routes import JsonRoute, bodies, plain
from service.settings import Settings

logger = logging.getLogger(__name__)


def create_app(settings: Settings | None = None) -> "Application":
    """The application; without settings, from the environment's PERSONA_* variables."""
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        with service.running():
            loading = asyncio.create_task(service.load())
            yield
            loading.cancel()

    app = Application(
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
    app.add_exception_handler(Exception, lambda _request, _error: _internal_error())
    app.open_border()
    return app


class Application(FastAPI):
    """FastAPI with a border around it, which counts and times requests and lets no exception out.

    `direct` are the routes of posted bodies by their path, for `service.direct_protocol`; what goes
    through FastAPI has the same border in `__call__`.
    """

    service: Service
    direct: Mapping[bytes, JsonRoute]

    def open_border(self) -> None:
        """Takes the routes as they are now; call it when all are there."""
        self.direct = {
            route.path.encode(): route for route in bodies.routes if isinstance(route, JsonRoute)
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
            await super().__call__(scope, receive, noting_send)
        except Exception as error:  # noqa: BLE001  # the process border: log, answer, live on
            refusal = self.refusal(error, scope["method"], scope["path"])
            if not status:
                await refusal(scope, receive, noting_send)
        self.count(scope["path"], status, time.perf_counter() - started)

    def refusal(self, error: Exception, method: str, path: str) -> Response:
        """The response to a request that failed; what nobody foresaw is logged."""
        if isinstance(error, ServiceError):
            return _answer_service_error(None, error)
        # Without the query string and without the error's message: either may quote a history.
        logger.error("%s %s failed\n%s", method, path, frames(error))
        return _internal_error()

    def count(self, path: str, status: int, seconds: float) -> None:
        """Counts an answered request."""
        route = path if path in self._seconds else "other"
        answered = self._answered.get((route, status))
        if answered is None:
            answered = self._answered[route, status] = REQUESTS.labels(route, status)
        self.service.tally.answered(answered, self._seconds[route], seconds)


def _error(status: int, code: str, message: str, path: Place = ()) -> Response:
    error = {"code": code, "message": message, "path": path}
    return Response(orjson.dumps({"error": error}), status, media_type="application/json")


def _internal_error() -> Response:
    return _error(500, ServiceError.code, "internal error")


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
