"""Maps paths to protocols."""

import re
from collections.abc import Mapping
from typing import Any, Protocol

from persona.contract import PersonaError
from service.protocols.exchange import Answer, Verb
from service.protocols.native import errors as native_errors
from service.protocols.native import routes as native
from service.protocols.native.item_changes import item_changes
from service.protocols.native.operating import operations
from service.protocols.openai import errors as openai_errors
from service.protocols.openai import routes as openai
from service.protocols.v2 import errors as v2_errors
from service.protocols.v2 import routes as v2

ROUTERS = (
    native.posted,
    native.plain,
    operations,
    item_changes,
    openai.posted,
    openai.plain,
    v2.posted,
    v2.plain,
)
_OPENAI = re.compile(r"/v1/(embeddings|models/[^/]+)")
VERBS: dict[str, Verb] = {**native.VERBS, **openai.VERBS}


class Errors(Protocol):
    """The errors of a protocol."""

    def error_answer(self, status: int, code: str, message: str) -> Answer:
        """An error as an answer."""

    def answer_to(self, error: PersonaError) -> Answer:
        """The answer to a request that is refused."""


def verb_of(path: str) -> Verb | None:
    """The verb for bodies posted to `path`; None if FastAPI must answer."""
    return VERBS.get(path) or v2.infer_verb(path)


def route_of(path: str) -> str:
    """The route of a path that `verb_of` knows, for metrics."""
    return path if path in VERBS else v2.infer_route(path)


def errors_of(scope: Mapping[str, Any]) -> Errors:
    """The errors of the protocol at a path; Persona's own errors for all other paths."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if path == "/v2" or path.startswith("/v2/"):
        return v2_errors
    if _OPENAI.fullmatch(path):
        return openai_errors
    return native_errors
