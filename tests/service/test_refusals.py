"""What the service refuses, and in which words."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.serving import serving


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    limits: dict[str, Any] = {"max_histories": 4, "max_history_items": 30, "max_body_bytes": 10_000}
    with serving(tiny_artifacts, **limits, max_attention_values=200, max_scores=6) as running:
        yield running


def refusal(response: httpx.Response) -> tuple[int, str, list[str | int]]:
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"code", "message", "path"}
    return response.status_code, error["message"], error["path"]


ID = "expected a string or an integer"
HISTORY = "expected a list of item ids or an object with 'items'"
INVALID: list[tuple[str, str, list[str | int]]] = [
    ("[]", "expected an object, got a list", []),
    ("{}", "field 'histories' is missing", ["histories"]),
    ('{"histories": 5}', "histories: expected a list of histories, got 5", ["histories"]),
    ('{"histories": [[], true]}', f"history 1: {HISTORY}, got true", ["histories", 1]),
    ('{"histories": ["item 1"]}', f'history 0: {HISTORY}, got "item 1"', ["histories", 0]),
    (
        '{"histories": [[], [], ["a", 2, 1.5]]}',
        f"history 2, item 2: {ID}, got 1.5",
        ["histories", 2, 2],
    ),
    ('{"histories": [[true]]}', f"history 0, item 0: {ID}, got true", ["histories", 0, 0]),
    ('{"histories": [[null]]}', f"history 0, item 0: {ID}, got null", ["histories", 0, 0]),
    ('{"histories": [[["a"]]]}', f"history 0, item 0: {ID}, got a list", ["histories", 0, 0]),
    (
        '{"histories": [[9223372036854775808]]}',
        "history 0, item 0: expected an integer of at most 64 bits, got 9223372036854775808",
        ["histories", 0, 0],
    ),
    (
        '{"histories": [{"items": ["a", {}]}]}',
        f"history 0, item 1: {ID}, got an object",
        ["histories", 0, "items", 1],
    ),
    ('{"histories": [{}]}', "history 0: field 'items' is missing", ["histories", 0, "items"]),
    (
        '{"histories": [{"items": [], "when": 1}]}',
        "history 0: field 'when' is not known",
        ["histories", 0, "when"],
    ),
    (
        '{"histories": [[1, 2, true, "a"]]}',
        f"history 0, item 2: {ID}, got true",
        ["histories", 0, 2],
    ),
    (
        f'{{"histories": [["a", {2**70}]]}}',
        f"history 0, item 1: expected an integer of at most 64 bits, got {2**70}",
        ["histories", 0, 1],
    ),
    (
        '{"histories": [{"id": 1.5, "items": []}]}',
        f"history 0, id: {ID}, got 1.5",
        ["histories", 0, "id"],
    ),
    ('{"histories": [], "colour": 1}', "field 'colour' is not known", ["colour"]),
    (
        '{"histories": [], "attention": "all"}',
        "attention: expected 'none', 'pooled' or 'full', got \"all\"",
        ["attention"],
    ),
    ('{"histories": [], "model": 7}', "model: expected a string, got 7", ["model"]),
    (
        '{"histories": [[], [], [], [], []]}',
        "the request has 5 histories, limit 4",
        ["histories"],
    ),
    (
        json.dumps({"histories": [[], ["item 1"] * 31]}),
        "history 1 has 31 items, limit 30",
        ["histories", 1],
    ),
    (
        '{"histories": [[], {"items": ["item 1", "x"]}], "unknown_items": "error"}',
        "history 1, item 1: unknown item 'x'",
        ["histories", 1, "items", 1],
    ),
    (
        json.dumps({"histories": [["item 1"] * 12] * 4, "attention": "full"}),
        "the attention of the response has 2,704 values, limit 200",
        ["attention"],
    ),
]


@pytest.mark.parametrize(("body", "message", "path"), INVALID, ids=[case[1] for case in INVALID])
def test_an_invalid_request_is_told_the_place_the_value_and_the_limit(
    client: httpx.Client, body: str, message: str, path: list[str | int]
) -> None:
    assert refusal(client.post("/v1/encode", content=body)) == (422, message, path)


@pytest.mark.parametrize("body", ["", "{", "\xff", '{"histories": [NaN]}', '{"histories": [[],]}'])
def test_what_is_no_json_is_refused(client: httpx.Client, body: str) -> None:
    status, message, _ = refusal(client.post("/v1/encode", content=body.encode("latin-1")))
    assert status == 422
    assert message.startswith(("the body is not JSON: ", "history 0: "))


def test_nothing_invalid_reaches_the_model(client: httpx.Client) -> None:
    def computed() -> list[str]:
        lines = client.get("/metrics").text.splitlines()
        return [line for line in lines if line.startswith("persona_histories_total")]

    before = computed()
    for body, _, _ in INVALID:
        client.post("/v1/encode", content=body)
    assert computed() == before


def test_a_long_value_is_quoted_in_part(client: httpx.Client) -> None:
    body = {"histories": [], "attention": "x" * 5000}
    _, message, _ = refusal(client.post("/v1/encode", json=body))
    assert len(message) < 150


def test_a_body_over_the_limit_is_refused_by_its_header(client: httpx.Client) -> None:
    status, message, _ = refusal(client.post("/v1/encode", content=b" " * 10_001))
    assert (status, message) == (413, "the body has 10,001 bytes, limit 10,000")


def test_a_body_of_unstated_length_is_refused_at_the_limit(client: httpx.Client) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield b" " * 1000

    status, message, _ = refusal(client.post("/v1/encode", content=pieces()))
    assert (status, message) == (413, "the body has more than 10,000 bytes, the limit")


def test_a_body_in_pieces_is_read_to_its_end(client: httpx.Client) -> None:
    pieces = iter([b'{"histories": [["it', b'em 1"], [', b"]]}"])
    assert len(client.post("/v1/encode", content=pieces).json()["users"]) == 2


def test_an_unknown_model_is_not_found(client: httpx.Client) -> None:
    response = client.post("/v1/encode", json={"histories": [], "model": "films"})
    assert refusal(response) == (404, "no model 'films'; loaded: tiny", ["model"])


def test_an_unknown_version_is_not_found(client: httpx.Client) -> None:
    response = client.post("/v1/encode", json={"histories": [], "version": "2"})
    assert refusal(response) == (404, "no version '2' of 'tiny'; loaded: 1", ["version"])


def test_an_unknown_path_and_a_wrong_method_have_the_shape_of_every_error(
    client: httpx.Client,
) -> None:
    assert refusal(client.get("/nowhere")) == (404, "GET /nowhere: not found", [])
    response = client.get("/v1/encode")
    assert refusal(response) == (405, "GET /v1/encode: method not allowed", [])
    assert response.headers["allow"] == "POST"


CANDIDATES: list[tuple[Any, str]] = [
    (["item 1", "x"], "candidate 1: unknown item 'x'"),
    ([["item 1"], ["x"]], "history 1, candidate 0: unknown item 'x'"),
    ([["item 1"]], "the request has 1 lists of candidates and 2 histories"),
    ([["item 1"], [2.5]], f"candidates of history 1, candidate 0: {ID}, got 2.5"),
    (["item 1"] * 4, "the response has 8 scores, limit 6"),
]


@pytest.mark.parametrize(("candidates", "message"), CANDIDATES, ids=[c[1] for c in CANDIDATES])
def test_invalid_candidates_are_refused(
    client: httpx.Client, candidates: Any, message: str
) -> None:
    body = {"histories": [[], ["item 1"]], "candidates": candidates, "unknown_items": "error"}
    assert refusal(client.post("/v1/score", json=body))[:2] == (422, message)


def test_attention_of_candidates_needs_an_artifact_that_has_it(client: httpx.Client) -> None:
    body = {"histories": [[]], "candidates": ["item 1"], "attention": True}
    status, message, _ = refusal(client.post("/v1/score", json=body))
    assert status == 422
    assert message == "model 'tiny' carries no graph 'score' for attention of candidates"
