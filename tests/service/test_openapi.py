"""`/openapi.json` says what the service does."""

from pathlib import Path
from typing import Any

import pytest

from service.app import create_app
from service.settings import Settings

DOCUMENT: dict[str, Any] = create_app(Settings(artifacts=Path("nowhere"))).openapi()


@pytest.mark.parametrize(("verb", "fields"), [
    ("encode", {"model", "version", "histories", "attention", "encoding", "unknown_items"}),
    ("score", {"model", "version", "histories", "candidates", "attention", "unknown_items"}),
    ("recommend", {
        "model", "version", "histories", "k", "exclude_seen", "allowed", "denied", "with_reasons",
        "exact", "unknown_items",
    }),
    ("similar", {"model", "version", "items", "k", "allowed", "denied"}),
])  # fmt: skip
def test_bodies_are_described_field_by_field(verb: str, fields: set[str]) -> None:
    operation = DOCUMENT["paths"][f"/v1/{verb}"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    assert schema["properties"].keys() == fields
    assert schema["additionalProperties"] is False


def test_every_error_is_described_in_the_shape_that_is_sent() -> None:
    for path in ("/v1/encode", "/v1/score", "/v1/recommend", "/v1/similar"):
        responses = DOCUMENT["paths"][path]["post"]["responses"]
        assert responses.keys() == {"200", "404", "413", "422", "429", "500", "503", "504"}
        for status in responses.keys() - {"200"}:
            schema = responses[status]["content"]["application/json"]["schema"]
            assert schema == {"$ref": "#/components/schemas/ErrorResponse"}


def test_no_reference_leads_nowhere() -> None:
    def references(value: Any) -> set[str]:
        if isinstance(value, dict):
            own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
            return own.union(*map(references, value.values()))
        return set().union(*map(references, value)) if isinstance(value, list) else set()

    known = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= known
