"""`/openapi.json` says what the service does."""

import asyncio
import base64
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from docs.api_examples import DOCUMENT as COMMITTED
from docs.api_examples import as_json, recorded
from service.app import create_app
from service.openapi import EXAMPLES, SWAGGER_UI
from service.settings import Settings
from tests.serving import serving

DOCUMENT: dict[str, Any] = create_app(Settings(artifacts=Path("nowhere"))).openapi()


@pytest.mark.parametrize(("verb", "fields"), [
    ("encode", {
        "model", "version", "routing_key", "histories", "attention", "encoding", "unknown_items",
    }),
    ("score", {
        "model", "version", "routing_key", "histories", "candidates", "attention", "unknown_items",
    }),
    ("recommend", {
        "model", "version", "routing_key", "histories", "k", "exclude_seen", "allowed", "denied",
        "with_reasons", "exact", "unknown_items",
    }),
    ("similar", {"model", "version", "items", "k", "allowed", "denied"}),
    ("items/search", {"model", "version", "items", "search", "k"}),
])  # fmt: skip
def test_bodies_are_described_field_by_field(verb: str, fields: set[str]) -> None:
    operation = DOCUMENT["paths"][f"/v1/{verb}"]["post"]
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema = DOCUMENT["components"]["schemas"][reference.rsplit("/", 1)[-1]]
    assert schema["properties"].keys() == fields
    assert schema["additionalProperties"] is False


def test_every_error_is_described_in_the_shape_that_is_sent() -> None:
    for path in ("/v1/encode", "/v1/score", "/v1/recommend", "/v1/similar", "/v1/items/search"):
        responses = DOCUMENT["paths"][path]["post"]["responses"]
        statuses = {"200", "401", "404", "413", "415", "422", "429", "500", "503", "504"}
        assert responses.keys() == statuses
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


def test_every_status_of_every_operation_has_a_real_example() -> None:
    missing = [
        f"{method} {path} {status}"
        for path, operations in DOCUMENT["paths"].items()
        for method, operation in operations.items()
        for status, response in operation["responses"].items()
        if not any("example" in content for content in response["content"].values())
    ]
    assert not missing


def test_every_body_has_an_example() -> None:
    bodies = [
        operation["requestBody"]["content"]["application/json"]
        for operations in DOCUMENT["paths"].values()
        for operation in operations.values()
        if "requestBody" in operation
    ]
    assert len(bodies) >= 5
    assert all("200" in body["examples"] for body in bodies)


def test_the_committed_document_is_the_one_that_is_served() -> None:
    assert as_json(DOCUMENT) == COMMITTED.read_text(), "python -m docs.api_examples writes it anew"


def test_the_examples_are_what_the_service_answers() -> None:
    committed = json.loads(EXAMPLES.read_text())
    assert_alike(asyncio.run(recorded()), committed, "")


def assert_alike(found: Any, expected: Any, place: str) -> None:
    """Equal, but for the last digits of numbers, and for counts, which belong to the process."""
    if isinstance(expected, dict):
        assert found.keys() == expected.keys(), place
        for key in expected.keys() - {"inference_count", "execution_count"}:
            assert_alike(found[key], expected[key], f"{place}/{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), place
        for number, pair in enumerate(zip(found, expected, strict=True)):
            assert_alike(*pair, f"{place}/{number}")
    elif place.endswith("/embedding"):
        numbers = (np.frombuffer(base64.b64decode(text), "<f4") for text in (found, expected))
        assert next(numbers) == pytest.approx(next(numbers), abs=1e-4), place
    else:
        assert found == pytest.approx(expected, abs=1e-4), place


def test_the_page_of_the_document_needs_no_internet(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts) as client:
        page = client.get("/docs").text
        linked = re.findall(r'(?:src|href)="([^"]*)"', page)
        assert not re.findall(r"https?://", page)
        assert sorted(linked) == ["data:,", "docs/swagger-ui-bundle.js", "docs/swagger-ui.css"]
        sums = (SWAGGER_UI / "SHA256SUMS").read_text().splitlines()
        for line in sums:
            checksum, name = line.split()
            assert hashlib.sha256(client.get(f"/docs/{name}").content).hexdigest() == checksum
        assert client.get("/openapi.json").json() == json.loads(COMMITTED.read_text())
        assert client.get("/docs/other").status_code == 404
