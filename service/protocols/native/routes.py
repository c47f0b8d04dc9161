"""The routes of Persona's own JSON protocol.

FastAPI documents them. A body is parsed once, from its bytes; FastAPI would first make a dict.
"""

from collections.abc import Callable, Coroutine
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from persona.contract import InvalidRequest, PersonaError, Query, Results
from service.lifecycle import Service
from service.protocols.exchange import Answer, Deadline, Headers, Receive, ask, read_body
from service.protocols.native.errors import answer_to
from service.protocols.native.large_bodies import LARGE_BYTES, parse_large
from service.protocols.native.parsing import (
    encode_query,
    parse,
    place_of,
    score_query,
    structure_of,
)
from service.protocols.native.rendering import render_encoded, render_scored
from service.protocols.native.schema import (
    EncodeRequest,
    EncodeResponse,
    ErrorResponse,
    ModelCard,
    Models,
    QueryBody,
    ScoreRequest,
    ScoreResponse,
)
from service.protocols.structure import SMALL_BYTES

Body = TypeVar("Body", bound=QueryBody)


class Verb(Generic[Body]):
    """Parse, engine call, render: what answers a posted body."""

    def __init__(
        self,
        body: type[Body],
        to_query: Callable[[Body], Query],
        render: Callable[[Body, Results], bytes],
    ) -> None:
        self._adapter = TypeAdapter(body)
        self._to_query = to_query
        self._render = render

    async def answer(self, service: Service, headers: Headers, receive: Receive) -> Answer:
        """The answer to a request."""
        body: Body | None = None
        try:
            deadline = Deadline(headers, service.settings)
            service.refuse_late(deadline.ms / 1000)
            raw = await read_body(headers, receive, service.settings.max_body_bytes)
            deadline.start()
            if service.is_loading:
                await service.loaded(deadline.left_s())
            if len(raw) > SMALL_BYTES:
                structure_of(service.settings).check(raw)
            if len(raw) > LARGE_BYTES:
                body = await parse_large(self._adapter, raw)
            else:
                body = parse(self._adapter, raw)
            del raw  # it would be kept until the answer
            results = await ask(service, self._to_query(body), deadline, receive)
            return Answer(self._render(body, results))
        except InvalidRequest as error:
            return answer_to(error, place_of(error, body) if body is not None else ())
        except PersonaError as error:
            return answer_to(error)


class PostedBody(APIRoute):
    """A route whose endpoint is a `Verb`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's hook for custom routes."""
        verb: Verb[Any] = VERBS[self.path]

        async def handle(request: Request) -> Response:
            service: Service = request.app.state.service
            answer = await verb.answer(service, request.headers.raw, request.receive)
            return answer.response()

        return handle


VERBS: dict[str, Verb[Any]] = {
    "/v1/encode": Verb(EncodeRequest, encode_query, render_encoded),
    "/v1/score": Verb(ScoreRequest, score_query, render_scored),
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}


_QUERY_ERRORS = _errors(404, 413, 422, 429, 500, 503, 504)

posted = APIRouter(prefix="/v1", route_class=PostedBody, tags=["users"])
plain = APIRouter(prefix="/v1", tags=["models"])


@posted.post("/encode", response_model=EncodeResponse, responses=_QUERY_ERRORS)
def encode(body: EncodeRequest) -> None:
    """User embeddings of histories, and what the encoder looked at."""


@posted.post("/score", response_model=ScoreResponse, responses=_QUERY_ERRORS)
def score(body: ScoreRequest) -> None:
    """Scores of candidate items for histories."""


@plain.get("/models", responses=_errors(503))
async def models(request: Request) -> Models:
    """The loaded models; the first is the default."""
    service: Service = request.app.state.service
    await service.loaded(service.settings.deadline_ms / 1000)
    cards = []
    for model in service.engine().registry.models:
        manifest = model.manifest
        facts = manifest.model_dump(include=set(ModelCard.model_fields))
        facts["width"] = manifest.architecture.width
        facts["max_length"] = manifest.architecture.max_length
        cards.append(ModelCard.model_validate(facts))
    return Models(models=cards)
