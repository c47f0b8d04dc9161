"""Validates the bodies of protocols whose errors are one line of text."""

import json
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from persona.contract import InvalidRequest

Seconds = Annotated[float, Field(gt=-(2**53), le=2**53, allow_inf_nan=False)]
Body = TypeVar("Body", bound=BaseModel)
Place = list[str | int]
# Expected values where a field allows several types: by field, at each depth of lists.
Kinds = Mapping[str, Sequence[str]]
_BRANCHES = {"str", "int", "float", "bool", "none"}  # pydantic's names for types of a value


def validate(adapter: TypeAdapter[Body], raw: bytes, kinds: Kinds = MappingProxyType({})) -> Body:
    """Validates a body from its bytes.

    Raises:
        InvalidRequest: names the place, what was expected there and what was found; `part` is the
            field of the body.
    """
    try:
        return adapter.validate_json(raw)
    except ValidationError as error:
        # If a value may have several types, the deepest error is about the intended type.
        details = error.errors(include_url=False)
        detail = max(details, key=lambda detail: len(_place(detail)))
        raise InvalidRequest(_message(detail, kinds), str((*detail["loc"], "body")[0])) from None


def _place(detail: Any) -> Place:
    """The place in the body, without the types that pydantic tried there."""
    return [
        part
        for part in detail["loc"]
        if isinstance(part, int) or (part.isidentifier() and part not in _BRANCHES)
    ]


def _message(detail: Any, kinds: Kinds) -> str:
    *parents, last = _place(detail) or [""]
    match detail["type"]:
        case "json_invalid":
            return f"the body is not JSON: {detail['ctx']['error']}"
        case "missing":
            return f"{_in_words(parents)}field '{last}' is missing"
        case "extra_forbidden":
            return f"{_in_words(parents)}field '{detail['loc'][-1]:.60}' is not known"
    expected = detail["msg"].removeprefix("Input should be ")
    if detail["type"].endswith("_type") and (field := (*parents, last)[0]) in kinds:
        expected = kinds[str(field)][len(parents)]
    return f"{_in_words([*parents, last])}expected {expected}, got {shown(detail['input'])}"


def _in_words(place: Place) -> str:
    return f"{'.'.join(map(str, place))}: " if any(part != "" for part in place) else ""


def shown(value: object) -> str:
    """A value, shortened for a message."""
    match value:
        case dict():
            return "an object"
        case list():
            return "a list"
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 60 else f"{text[:57]}..."
