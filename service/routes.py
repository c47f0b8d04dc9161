"""The HTTP routes; bodies are read within their limit and parsed once, straight from bytes.

`service.direct_protocol` begins most answers itself; here is FastAPI's way to the same.
"""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, cast, get_type_hints

from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter

from service.disconnect import unless_gone
from service.encode import encode
from service.errors import BodyTooLarge, ClientGone
from service.lifecycle import Service
from service.metrics import exposition
from service.models import Pending
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


def _service(request: Request) -> Service:
    return cast("Service", request.app.service)


FromService = Annotated[Service, Depends(_service)]


class JsonRoute(APIRoute):
    """A route `endpoint(body, service)` whose `Pending` answer is JSON; FastAPI documents it.

    FastAPI would parse the bytes of a body to a dict first, and measure neither them nor the time.
    """

    def begin(self, raw: bytes | bytearray, service: Service) -> Pending:
        """Validates a request's body and asks for what its answer needs.

        Raises:
            ServiceError: there will be no answer; the message says why.
        """
        return cast("Pending", self.endpoint(parse(self._adapter, raw), service))

    def get_route_handler(self) -> Handler:
        """Answers as FastAPI asks for it."""
        self._adapter: TypeAdapter[BaseModel] = TypeAdapter(get_type_hints(self.endpoint)["body"])

        async def handle(request: Request) -> Response:
            service = _service(request)
            raw = await _read(request, service.settings.max_body_bytes)
            await service.loaded()
            pending = self.begin(raw, service)
            content = pending.finish(await unless_gone(request.receive, pending.outputs))
            return Response(content, media_type="application/json")

        return handle


async def _read(request: Request, limit: int) -> bytes:
    """The body, read no further than the limit.

    Raises:
        BodyTooLarge: it is longer, or says so in its header.
        ClientGone: the client disconnected before it was sent whole.
    """
    length = int(request.headers.get("content-length", 0))
    if length > limit:
        raise BodyTooLarge(f"the body has {length:,} bytes, limit {limit:,}")
    message = await request.receive()
    body: bytes = message.get("body", b"")
    while message.get("more_body"):
        message = await request.receive()
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
def encode_histories(body: EncodeRequest, service: FromService) -> Pending:
    """User embeddings of histories, and what the encoder looked at."""
    return encode(body, service.model(body.model), service.settings)


@bodies.post("/score", response_model=ScoreResponse, responses=_COMPUTE_ERRORS)
def score_candidates(body: ScoreRequest, service: FromService) -> Pending:
    """Scores of candidate items for histories."""
    return score(body, service.model(body.model), service.settings)


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
