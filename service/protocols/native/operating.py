"""Routes that change what is served. `service/gate.py` admits operators; service/versions acts."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from service.lifecycle import Service
from service.protocols.exchange import read_body
from service.protocols.native.parsing import parse
from service.protocols.native.schema import ErrorResponse
from service.versions import operating

MAX_VERSIONS = 8  # versions that share the requests

Body = TypeVar("Body", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class VersionBody(_Strict):
    """A version of the model."""

    version: str | None = None


class SharesBody(_Strict):
    """Shares of the requests that name no version."""

    weights: Annotated[
        dict[str, Annotated[float, Field(ge=0, le=1e6)]],
        Field(
            max_length=MAX_VERSIONS, description="by version; empty: the newest version gets all"
        ),
    ]


class ModelState(BaseModel):
    """The state of a model in all workers."""

    model: str
    shares: dict[str, float]
    loaded: list[str]
    refused: dict[str, str]
    workers: int


def _described(body: type[BaseModel]) -> dict[str, Any]:
    content = {"application/json": {"schema": body.model_json_schema()}}
    return {"requestBody": {"content": content}}


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (401, 403, 404, 409, 413, 422, 503, 504)
}
operations = APIRouter(prefix="/v1/models/{name}", responses=_ERRORS, tags=["operators"])


@operations.post("/load", openapi_extra=_described(VersionBody))
async def load(request: Request, name: str) -> ModelState:
    """Checks the artifacts folder now; with a version, loads it beside the others."""
    version = (await _read(request, VersionBody)).version
    return await _state(request, lambda watcher: operating.load(watcher, name, version))


@operations.post("/unload", openapi_extra=_described(VersionBody))
async def unload(request: Request, name: str) -> ModelState:
    """Removes a version or, without one, the whole model."""
    version = (await _read(request, VersionBody)).version
    return await _state(request, lambda watcher: operating.unload(watcher, name, version))


@operations.post("/share", openapi_extra=_described(SharesBody))
async def share(request: Request, name: str) -> ModelState:
    """Splits the requests that name no version between versions."""
    weights = (await _read(request, SharesBody)).weights
    return await _state(request, lambda watcher: operating.share(watcher, name, weights))


async def _read(request: Request, body: type[Body]) -> Body:
    limit = request.app.state.service.settings.max_body_bytes
    raw = await read_body(request.headers.raw, request.receive, limit)
    return parse(TypeAdapter(body), raw or b"{}")


async def _state(
    request: Request, change: Callable[[Any], Awaitable[operating.ModelState]]
) -> ModelState:
    service: Service = request.app.state.service
    await service.loaded()
    service.engine()
    return ModelState(**asdict(await change(service.versions)))
