"""`POST /v1/items/search`: names and links of items, by id or by part of the name."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from weakref import WeakKeyDictionary

import orjson
from pydantic import TypeAdapter

from persona.artifact.titles import ItemTitle, Titles
from persona.contract import InvalidRequest, PersonaError
from persona.engine.model import Model
from service.lifecycle import Service
from service.protocols.exchange import Answer, Deadline, Headers, Receive, accept
from service.protocols.native.errors import answer_to
from service.protocols.native.parsing import parse, structure_of
from service.protocols.native.schema import ItemsRequest
from service.protocols.structure import SMALL_BYTES


class ItemsVerb:
    """Answers from the artifact's files, on a thread, because a large catalogue takes long to read.

    With several threads, the event loop would get too little of the interpreter lock.
    """

    def __init__(self) -> None:
        self._adapter = TypeAdapter(ItemsRequest)
        self._titles: WeakKeyDictionary[Model, Titles] = WeakKeyDictionary()
        self._thread = ThreadPoolExecutor(1, "titles")

    async def answer(self, service: Service, headers: Headers, receive: Receive) -> Answer:
        """The answer to a request."""
        try:
            raw, deadline = await accept(service, headers, receive)
            if len(raw) > SMALL_BYTES:
                structure_of(service.settings).check(raw)
            body = parse(self._adapter, raw)
            _refuse_many(body, service)
            model = service.engine().registry.find(body.model, body.version)
            return Answer(_render(model, await self._found(model, body, deadline)))
        except InvalidRequest as error:
            return answer_to(error, (error.part,) if error.part in _FIELDS else ())
        except PersonaError as error:
            return answer_to(error)

    async def _found(self, model: Model, body: ItemsRequest, deadline: Deadline) -> list[ItemTitle]:
        """Raises DeadlineExceeded if other searches take too long."""
        finding = partial(self._find, model, body)
        try:
            async with asyncio.timeout(deadline.left_s()):
                return await asyncio.get_running_loop().run_in_executor(self._thread, finding)
        except TimeoutError:
            raise deadline.exceeded() from None

    def _find(self, model: Model, body: ItemsRequest) -> list[ItemTitle]:
        if (titles := self._titles.get(model)) is None:
            titles = self._titles[model] = Titles(model.artifact)
        if body.items is None:
            return titles.search(body.search, body.k)
        unknown = model.catalogue.n_items
        return [
            ItemTitle(item, str(item), known=False) if row == unknown else titles.of_row(row)
            for item, row in zip(body.items, model.catalogue.rows(body.items), strict=True)
        ]


_FIELDS = frozenset(ItemsRequest.model_fields)


def _refuse_many(body: ItemsRequest, service: Service) -> None:
    settings = service.settings
    if body.k > settings.max_k:
        raise InvalidRequest(f"k is {body.k:,}, limit {settings.max_k:,}", "k")
    if body.items is not None and len(body.items) > settings.max_items:
        message = f"the request has {len(body.items):,} items, limit {settings.max_items:,}"
        raise InvalidRequest(message, "items")


def _render(model: Model, found: list[ItemTitle]) -> bytes:
    items = [
        {"item": one.item_id, "name": one.name, "link": one.link, "known": one.known}
        for one in found
    ]
    answer = {"model": model.manifest.name, "version": model.manifest.version, "items": items}
    return orjson.dumps(answer)
