"""The routes of Persona's own JSON protocol.

FastAPI documents them. A body is parsed once, from its bytes; FastAPI would first build a dict.
"""

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from fastapi import APIRouter, Request
from pydantic import TypeAdapter

from persona.contract import InvalidRequest, PersonaError, Query, Results
from service.lifecycle import Service
from service.protocols.exchange import Answer, Headers, Receive, Verb, accept, answered_by, ask
from service.protocols.native.errors import answer_to
from service.protocols.native.items import ItemsVerb
from service.protocols.native.large_bodies import LARGE_BYTES, parse_large
from service.protocols.native.parsing import (
    encode_query,
    parse,
    place_of,
    recommend_query,
    score_query,
    similar_query,
    structure_of,
)
from service.protocols.native.rendering import (
    model_object,
    render_encoded,
    render_recommended,
    render_scored,
    render_similar,
)
from service.protocols.native.schema import (
    EncodeRequest,
    EncodeResponse,
    ErrorResponse,
    ItemsRequest,
    ItemsResponse,
    ModelCard,
    Models,
    QueryBody,
    RecommendRequest,
    RecommendResponse,
    ScoreRequest,
    ScoreResponse,
    SimilarRequest,
    SimilarResponse,
)
from service.protocols.structure import SMALL_BYTES

Body = TypeVar("Body", bound=QueryBody | SimilarRequest)


class QueryVerb(Generic[Body]):
    """Answers posted bodies: parse, engine call, render."""

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
            raw, deadline = await accept(service, headers, receive)
            if len(raw) > SMALL_BYTES:
                structure_of(service.settings).check(raw)
            if len(raw) > LARGE_BYTES:
                body = await parse_large(self._adapter, raw)
            else:
                body = parse(self._adapter, raw)
            del raw  # otherwise it would be kept until the answer
            results = await ask(service, self._to_query(body), deadline, receive)
            return Answer(self._render(body, results))
        except InvalidRequest as error:
            return answer_to(error, place_of(error, body) if body is not None else ())
        except PersonaError as error:
            return answer_to(error)


VERBS: dict[str, Verb] = {
    "/v1/encode": QueryVerb(EncodeRequest, encode_query, render_encoded),
    "/v1/score": QueryVerb(ScoreRequest, score_query, render_scored),
    "/v1/recommend": QueryVerb(RecommendRequest, recommend_query, render_recommended),
    "/v1/similar": QueryVerb(SimilarRequest, similar_query, render_similar),
    "/v1/items/search": ItemsVerb(),
}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorResponse} for status in statuses}


_QUERY_ERRORS = _errors(401, 404, 413, 415, 422, 429, 500, 503, 504)

posted = APIRouter(
    prefix="/v1", route_class=answered_by(lambda path, _: VERBS[path]), tags=["users"]
)
plain = APIRouter(prefix="/v1", tags=["models"])


@posted.post("/encode", response_model=EncodeResponse, responses=_QUERY_ERRORS)
def encode(body: EncodeRequest) -> None:
    """Turns histories into user embeddings, with attention weights on request."""


@posted.post("/score", response_model=ScoreResponse, responses=_QUERY_ERRORS)
def score(body: ScoreRequest) -> None:
    """Scores candidates for histories."""


@posted.post("/recommend", response_model=RecommendResponse, responses=_QUERY_ERRORS)
def recommend(body: RecommendRequest) -> None:
    """Recommends items for histories, with the contribution of each click on request."""


@posted.post("/similar", response_model=SimilarResponse, responses=_QUERY_ERRORS)
def similar(body: SimilarRequest) -> None:
    """Returns the items most similar to each given item."""


@posted.post("/items/search", response_model=ItemsResponse, responses=_QUERY_ERRORS)
def items(body: ItemsRequest) -> None:
    """Returns names and links of items: of given ids, or of a search in the names."""


@plain.get("/models", responses=_errors(401, 503))
async def models(request: Request) -> Models:
    """Lists the loaded versions, the default first, also in the form of OpenAI's API."""
    service: Service = request.app.state.service
    await service.loaded()
    registry = service.engine().registry
    manifests = [model.manifest for model in registry.models]
    cards = []
    for model in registry.loaded:
        manifest = model.manifest
        facts = manifest.model_dump(include=set(ModelCard.model_fields))
        facts["share"] = registry.shares[manifest.name].get(manifest.version, 0.0)
        facts["checksum"] = model.artifact.checksum
        facts["examples"] = model.artifact.examples
        facts["width"] = manifest.architecture.width
        facts["max_length"] = manifest.architecture.max_length
        cards.append(ModelCard.model_validate(facts))
    return Models(models=cards, data=list(map(model_object, manifests)))
