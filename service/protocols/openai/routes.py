"""The routes of OpenAI's embeddings API; `GET /v1/models` is in native/routes.py, for both."""

from typing import Any

from fastapi import APIRouter, Request
from pydantic import TypeAdapter

from persona.contract import PersonaError
from service.lifecycle import Service
from service.protocols.exchange import Answer, Headers, Receive, accept, answered_by, ask
from service.protocols.native.rendering import model_object
from service.protocols.native.schema import ModelObject
from service.protocols.openai.errors import answer_to
from service.protocols.openai.parsing import (
    embeddings_query,
    model_and_version,
    refuse_columns,
    structure_of,
)
from service.protocols.openai.rendering import render_embeddings
from service.protocols.openai.schema import (
    EmbeddingsRequest,
    EmbeddingsResponse,
    OpenAIErrorResponse,
)
from service.protocols.structure import SMALL_BYTES
from service.protocols.validation import validate

_BODY = TypeAdapter(EmbeddingsRequest)
_KINDS = {
    "input": (
        "a string, or a list of strings, integers or lists of ids",
        "only strings, only integers, or only lists of ids",
        "a string or an integer",
    )
}


class EmbeddingsVerb:
    """Answers `POST /v1/embeddings`."""

    async def answer(self, service: Service, headers: Headers, receive: Receive) -> Answer:
        """The answer to a request."""
        try:
            raw, deadline = await accept(service, headers, receive)
            if len(raw) > SMALL_BYTES:
                structure_of(service.settings).check(raw)
            body = validate(_BODY, raw, _KINDS)
            query = embeddings_query(body, service.settings)
            refuse_columns(service.engine().registry.find(query.model, query.version))
            results = await ask(service, query, deadline, receive)
            return Answer(render_embeddings(body, results))
        except PersonaError as error:
            return answer_to(error)


VERBS = {"/v1/embeddings": EmbeddingsVerb()}


def _errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": OpenAIErrorResponse} for status in statuses}


posted = APIRouter(
    prefix="/v1", route_class=answered_by(lambda path, _: VERBS[path]), tags=["OpenAI"]
)
plain = APIRouter(prefix="/v1", tags=["OpenAI"])


@posted.post(
    "/embeddings",
    response_model=EmbeddingsResponse,
    responses=_errors(401, 404, 413, 415, 422, 429, 500, 503, 504),
)
def embeddings(body: EmbeddingsRequest) -> None:
    """Turns histories into user embeddings, in the form of OpenAI's embeddings."""


@plain.get("/models/{model}", responses=_errors(401, 404, 503))
async def model(request: Request, model: str) -> ModelObject:
    """Returns one loaded model, by its name or by name:version."""
    service: Service = request.app.state.service
    await service.loaded()
    found = service.engine().registry.find(*model_and_version(model))
    return model_object(found.manifest, model)
