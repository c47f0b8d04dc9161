"""`POST /v1/items`: adds, changes and removes items of a running model."""

from dataclasses import asdict
from typing import Annotated, Any

import orjson
from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from persona.artifact.format import Link
from persona.artifact.item_changes import NewItem
from persona.contract import InvalidRequest, PersonaError
from service.lifecycle import Service
from service.protocols.exchange import Answer, Headers, Receive, answered_by, read_body
from service.protocols.native.errors import answer_to
from service.protocols.native.schema import ErrorResponse, Id, ModelName
from service.protocols.validation import validate
from service.versions.item_changes import change_items

Numbers = Annotated[list[float], Field(fail_fast=True)]
Texts = Annotated[list[str], Field(fail_fast=True)]
Feature = Annotated[str | float | Texts | Numbers | None, Field(union_mode="left_to_right")]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ItemBody(_Strict):
    """An item to add; an item that the model knows gets a new vector."""

    item: Id
    features: Annotated[
        dict[str, Feature] | None, Field(description="features that the model reads, by name")
    ] = None
    vector: Annotated[Numbers | None, Field(description="in place of features: D numbers")] = None
    name: Annotated[str | None, Field(description="for people", max_length=1000)] = None
    link: Annotated[Link | None, Field(description="for people", max_length=2000)] = None


class ItemChangesRequest(_Strict):
    """Changes of a model's items."""

    model: ModelName = None
    version: Annotated[str | None, Field(description="default: the version that answers")] = None
    items: Annotated[
        list[ItemBody], Field(fail_fast=True, description="items to add or change")
    ] = []
    remove: Annotated[
        list[Id],
        Field(
            fail_fast=True, description="items not to recommend; histories may still contain them"
        ),
    ] = []


class ItemChangesResponse(BaseModel):
    """The items of a model, in every worker."""

    model: str
    version: str
    n_items: int
    added: int
    changed: int
    hidden: Annotated[int, Field(description="including earlier requests")]
    workers: int


_ERRORS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorResponse} for status in (401, 403, 404, 409, 413, 422, 503, 504)
}


class ItemChangesVerb:
    """Changes a model's items, and answers when all workers have the change."""

    def __init__(self) -> None:
        self._adapter = TypeAdapter(ItemChangesRequest)

    async def answer(self, service: Service, headers: Headers, receive: Receive) -> Answer:
        """The answer to a request."""
        try:
            raw = await read_body(headers, receive, service.settings.max_body_bytes)
            body = validate(self._adapter, raw)
            await service.loaded()
            _refuse_many(body, service.settings.max_items)
            model = service.engine().registry.find(body.model, body.version)
            items = [
                NewItem(one.item, one.features, one.vector, one.name, one.link)
                for one in body.items
            ]
            state = await change_items(service.versions, model, items, body.remove)
            return Answer(orjson.dumps(asdict(state)))
        except InvalidRequest as error:
            return answer_to(error, (error.part,) if error.part in _FIELDS else ())
        except PersonaError as error:
            return answer_to(error)


_VERB = ItemChangesVerb()
_FIELDS = frozenset(ItemChangesRequest.model_fields)
item_changes = APIRouter(
    prefix="/v1", route_class=answered_by(lambda _path, _parameters: _VERB), tags=["operators"]
)


@item_changes.post("/items", response_model=ItemChangesResponse, responses=_ERRORS)
def change(body: ItemChangesRequest) -> None:
    """Adds, changes and removes items, in every worker and permanently."""


def _refuse_many(body: ItemChangesRequest, limit: int) -> None:
    n = len(body.items) + len(body.remove)
    if n > limit:
        raise InvalidRequest(f"the request has {n:,} items, limit {limit:,}", "items")
    if not n:
        raise InvalidRequest("the request has neither 'items' nor 'remove'", "items")
