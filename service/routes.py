"""The HTTP routes; bodies are read within their limit and parsed once, straight from bytes."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, NamedTuple, cast, get_type_hints

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter
from starlette.types import Receive, Scope

from service.encode import encode
from service.errors import BodyTooLarge, ClientGone
from service.lifecycle import Service
from service.metrics import exposition
from service.schema import (
    EncodeRequest,
    EncodeResponse,
    ErrorResponse,
    Health,
    ModelCard,
    Models,
    ScoreRequest,
    ScoreResponse,
    parse,
)
from service.score import score

Handler = Callable[[Request], Coroutine[Any, Any, Response]]


class Caller(NamedTuple):
    """Who answers, and where the client's disconnection is heard."""

    service: Service
    receive: Receive


def _caller(request: Request) -> Caller:
    return Caller(_service(request), request.receive)


def _service(request: Request) -> Service:
    return cast("Service", request.app.service)


FromCaller = Annotated[Caller, Depends(_caller)]


class JsonRoute(APIRoute):
    """A route `endpoint(body, caller)` that returns JSON; FastAPI documents it.

    FastAPI would parse the bytes of a body to a dict first, and measure neither them nor the time.
    """

    async def answer(self, scope: Scope, caller: Caller) -> bytes:
        """Reads and validates a request's body and calls the endpoint.

        Raises:
            ServiceError: there is no answer; the message says why.
        """
        raw = await _read(scope, caller.receive, caller.service.settings.max_body_bytes)
        await caller.service.loaded()
        return cast("bytes", await self.endpoint(parse(self._adapter, raw), caller))

    def get_route_handler(self) -> Handler:
        """The same as FastAPI calls it."""
        self._adapter: TypeAdapter[BaseModel] = TypeAdapter(get_type_hints(self.endpoint)["body"])

        async def handle(request: Request) -> Response:
            content = await self.answer(request.scope, _caller(request))
            return Response(content, media_type="application/json")

        return handle


async def _read(scope: Scope, receive: Receive, limit: int) -> bytes:
    """The body, read no further than the limit.

    Raises:
        BodyTooLarge: it is longer, or says so in its header.
        ClientGone: the client disconnected before it was sent whole.
    """
    for name, value in scope["headers"]:
        if name == b"content-length" and int(value) > limit:
            raise BodyTooLarge(f"the body has {int(value):,} bytes, limit {limit:,}")
    message = await receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await receive()
        body += message.get("body", b"")  # bytes: in CPython no slower than a bytearray here
        if len(body) > limit:
            raise BodyTooLarge(f"the body has more than {limit:,} bytes, the limit")
    if message["type"] == "http.disconnect":
        raise ClientGone("the client disconnected")
    return body


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}


_COMPUTE_ERRORS = _errors(404, 413, 422, 429, 500, 503, 504)

bodies = APIRouter(prefix="/v1", route_class=JsonRoute, tags=["users"])
plain = APIRouter()


@bodies.post("/encode", response_model=EncodeResponse, responses=_COMPUTE_ERRORS)
async def encode_histories(body: EncodeRequest, caller: FromCaller) -> bytes:
    """User embeddings of histories, and what the encoder looked at."""
    service, receive = caller
    return await encode(body, service.model(body.model), service.settings, receive)


@bodies.post("/score", response_model=ScoreResponse, responses=_COMPUTE_ERRORS)
async def score_candidates(body: ScoreRequest, caller: FromCaller) -> bytes:
    """Scores of candidate items for histories."""
    service, receive = caller
    return await score(body, service.model(body.model), service.settings, receive)


@plain.get("/v1/models", tags=["models"], responses=_errors(503))
async def models(request: Request) -> Models:
    """The loaded models; the first is the default."""
    service = _service(request)
    await service.loaded()
    cards = []
    for model in service.models():
        manifest = model.artifact.manifest
        facts = manifest.model_dump(include=set(ModelCard.model_fields))
        facts["width"] = manifest.architecture.width
        facts["max_length"] = manifest.architecture.max_length
        cards.append(ModelCard.model_validate(facts))
    return Models(models=cards)


@plain.get("/health/live", tags=["health"])
async def live() -> Health:
    """200 while the worker's event loop turns."""
    return Health(status="live")


@plain.get("/health/ready", tags=["health"], responses=_errors(503))
async def ready(request: Request) -> Health:
    """200 when the artifacts are verified and warm, until the worker is asked to end."""
    _service(request).require_ready()
    return Health(status="ready")


@plain.get("/metrics", tags=["health"], response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus metrics, summed over the workers."""
    _service(request).tally.flush()
    return Response(exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
