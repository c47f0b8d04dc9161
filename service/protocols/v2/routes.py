"""The routes of the Open Inference Protocol."""

import re
import zlib
from collections.abc import Mapping
from time import perf_counter_ns
from typing import Any

from fastapi import APIRouter, Request

from persona.contract import InvalidRequest, PersonaError, RequestTooLarge
from persona.engine import Engine
from service.health import Reports
from service.lifecycle import Service
from service.protocols.exchange import Answer, Headers, Receive, accept, answered_by, ask
from service.protocols.v2 import repository
from service.protocols.v2.errors import answer_to
from service.protocols.v2.parsing import parse
from service.protocols.v2.rendering import HEADER_LENGTH, render
from service.protocols.v2.schema import (
    Done,
    InferenceErrorResponse,
    InferRequest,
    InferResponse,
    Live,
    ModelMetadata,
    Ready,
    RepositoryModel,
    ServerMetadata,
    Statistics,
)
from service.protocols.v2.timing import Timing
from service.versions import operating

VERSION = "/models/{model_name}/versions/{model_version}"
_INFER = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")
BINARY = "application/octet-stream"


class InferVerb:
    """Answers an infer request."""

    def __init__(self, model: str, version: str | None) -> None:
        self._model, self._version = model, version

    async def answer(self, service: Service, headers: Headers, receive: Receive) -> Answer:
        """The answer to a request."""
        try:
            limit = service.settings.max_body_bytes
            own = {name: value for name, value in headers if name in _OWN_HEADERS}
            others = [pair for pair in headers if pair[0] not in _OWN_HEADERS]
            body, deadline = await accept(service, others, receive)
            started = perf_counter_ns()
            raw = _decoded(body, own, limit)
            model = service.engine().registry.find(self._model, self._version)
            with Timing(service, model, started) as timing:
                inference = parse(raw, _json_bytes(own), model, service.settings)
                timing.end("compute_input")
                results = await ask(service, inference.query, deadline, receive)
                timing.end_computed()
                answer = render(inference, results, model, service.settings.max_attention_values)
                timing.end("compute_output")
        except PersonaError as error:
            return answer_to(error)
        else:
            return answer


_OWN_HEADERS = {HEADER_LENGTH, b"content-encoding"}


def _json_bytes(headers: Mapping[bytes, bytes]) -> int | None:
    """How much of the body is JSON, where binary tensors follow it."""
    value = headers.get(HEADER_LENGTH)
    if value is None:
        return None
    if not re.fullmatch(rb"[0-9]{1,12}", value):
        raise InvalidRequest(f"{HEADER_LENGTH.decode()}: expected a number of bytes")
    return int(value)


def _decoded(body: bytes, headers: Mapping[bytes, bytes], limit: int) -> bytes:
    """The body, decompressed no further than to `limit` bytes.

    Raises:
        RequestTooLarge: there are more.
        InvalidRequest: it is not what its content encoding says.
    """
    encoding = headers.get(b"content-encoding", b"identity").lower()
    if encoding == b"identity":
        return body
    if encoding not in {b"gzip", b"deflate"}:
        raise InvalidRequest("content-encoding: only gzip and deflate")
    decoder = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: by their first bytes
    try:
        decoded = decoder.decompress(body, limit + 1)
    except zlib.error as error:
        raise InvalidRequest(f"the body is not {encoding.decode()}: {error}") from None
    if len(decoded) > limit:
        raise RequestTooLarge(f"the decompressed body has more than {limit:,} bytes, the limit")
    if not decoder.eof or decoder.unused_data:
        raise InvalidRequest(f"the body is not one whole {encoding.decode()} stream")
    return decoded


def infer_verb(path: str) -> InferVerb | None:
    """What answers a body posted to `path`, if it is an infer request."""
    found = _INFER.fullmatch(path)
    return InferVerb(*found.groups()) if found else None


def infer_route(path: str) -> str:
    """The route of an infer request, as metrics name it."""
    return f"/v2{VERSION}/infer" if "/versions/" in path else "/v2/models/{model_name}/infer"


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": InferenceErrorResponse} for status in statuses}


_BINARY = {BINARY: {"schema": {"type": "string", "format": "binary"}}}
_INFER_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {"content": _BINARY},
    **_errors(400, 401, 404, 413, 429, 500, 503, 504),
}
_OF_A_MODEL = _errors(401, 404, 503)
_OPERATIONS = _errors(401, 403, 404, 409, 503, 504)

posted = APIRouter(
    prefix="/v2",
    route_class=answered_by(
        lambda _, names: InferVerb(names["model_name"], names.get("model_version"))
    ),
    tags=["Open Inference Protocol"],
)
plain = APIRouter(prefix="/v2", tags=["Open Inference Protocol"])


@posted.post(
    f"{VERSION}/infer",
    response_model=InferResponse,
    response_model_exclude_none=True,
    responses=_INFER_RESPONSES,
    openapi_extra={"requestBody": {"content": _BINARY}},
)
def infer_version(model_name: str, model_version: str, body: InferRequest) -> None:
    """User embeddings of histories, by one version of a model."""


@posted.post(
    "/models/{model_name}/infer",
    response_model=InferResponse,
    responses=_INFER_RESPONSES,
    openapi_extra={"requestBody": {"content": _BINARY}},
)
def infer(model_name: str, body: InferRequest) -> None:
    """User embeddings of histories, by the newest version of a model."""


@plain.get("", responses=_errors(401))
async def server() -> ServerMetadata:
    """Name, version and extensions of the server."""
    return repository.server_metadata()


@plain.get("/health/live", responses=_errors(400))
async def live(request: Request) -> Live:
    """200 while every worker computes what waits, else 400."""
    reports: Reports = request.app.state.reports
    if problems := reports.why_not_live():
        raise InvalidRequest(problems)
    return Live()


@plain.get("/health/ready", responses=_errors(400))
async def ready(request: Request) -> Ready:
    """200 when queries are answered, else 400."""
    reports: Reports = request.app.state.reports
    if problems := reports.why_not_ready():
        raise InvalidRequest(problems)
    return Ready()


@plain.get("/models/stats", responses=_errors(401, 503))
async def all_statistics(request: Request) -> Statistics:
    """What every model has answered, summed over the workers."""
    engine = await _engine(request)
    return repository.statistics(request.app.state.service, engine.registry.models)


@plain.get("/models/{model_name}/stats", responses=_OF_A_MODEL)
async def model_statistics(request: Request, model_name: str) -> Statistics:
    """What the newest version of a model has answered, summed over the workers."""
    model = (await _engine(request)).registry.find(model_name)
    return repository.statistics(request.app.state.service, [model])


@plain.get(f"{VERSION}/stats", responses=_OF_A_MODEL)
async def version_statistics(request: Request, model_name: str, model_version: str) -> Statistics:
    """What one version of a model has answered, summed over the workers."""
    model = (await _engine(request)).registry.find(model_name, model_version)
    return repository.statistics(request.app.state.service, [model])


@plain.get("/models/{model_name}", responses=_OF_A_MODEL)
async def model(request: Request, model_name: str) -> ModelMetadata:
    """A model's versions, and the tensors of the newest."""
    engine = await _engine(request)
    return repository.model_metadata(engine, engine.registry.find(model_name))


@plain.get(VERSION, responses=_OF_A_MODEL)
async def version(request: Request, model_name: str, model_version: str) -> ModelMetadata:
    """A model's versions, and the tensors of one of them."""
    engine = await _engine(request)
    return repository.model_metadata(engine, engine.registry.find(model_name, model_version))


@plain.get("/models/{model_name}/ready", responses=_OF_A_MODEL)
async def model_ready(request: Request, model_name: str) -> Ready:
    """200 when the model answers."""
    (await _engine(request)).registry.find(model_name)
    return Ready()


@plain.get(f"{VERSION}/ready", responses=_OF_A_MODEL)
async def version_ready(request: Request, model_name: str, model_version: str) -> Ready:
    """200 when this version of the model answers."""
    (await _engine(request)).registry.find(model_name, model_version)
    return Ready()


@plain.post("/repository/index", responses=_errors(401, 503))
async def index(request: Request) -> list[RepositoryModel]:
    """Every loaded version of every model."""
    return repository.index(await _engine(request))


@plain.post("/repository/models/{model_name}/load", responses=_OPERATIONS)
async def load(request: Request, model_name: str) -> Done:
    """Loads the newest version of a model, in every worker."""
    await _engine(request)
    await operating.load(request.app.state.service.versions, model_name, None)
    return Done()


@plain.post("/repository/models/{model_name}/unload", responses=_OPERATIONS)
async def unload(request: Request, model_name: str) -> Done:
    """Unloads all versions of a model, in every worker."""
    await _engine(request)
    await operating.unload(request.app.state.service.versions, model_name, None)
    return Done()


async def _engine(request: Request) -> Engine:
    service: Service = request.app.state.service
    await service.loaded()
    return service.engine()
