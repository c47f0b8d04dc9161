"""`POST /v1/recommend` and `POST /v1/similar`, on the artifacts that ship."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from persona.engine import Engine
from service.protocols.native.schema import RecommendResponse, SimilarResponse
from tests.brute_force import BruteForce
from tests.fences import ROOT
from tests.serving import serving

HISTORIES: list[Any] = [
    ["Asteroid", "Sun", "Solar System"],
    {"id": "ann", "items": ["England"] * 60},
    [],
    ["never seen", 7],
]


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(ROOT / "artifacts") as running:
        yield running


@pytest.fixture(scope="module")
def limited(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, max_k=8, max_recommendations=20, max_histories=4) as running:
        yield running


def recommend(client: httpx.Client, **body: Any) -> Any:
    response = client.post("/v1/recommend", json={"histories": HISTORIES, "k": 20} | body)
    assert response.status_code == 200, response.text
    RecommendResponse.model_validate_json(response.content, strict=True)
    return response.json()


@pytest.mark.parametrize(
    "filters",
    [{}, {"denied": ["Earth", "x"]}, {"allowed": ["Earth", "x", "Mars"]}, {"exclude_seen": True}],
    ids=["all", "denied", "allowed", "unseen"],
)
@pytest.mark.parametrize("model", ["news", "articles"])
def test_recommendations_are_those_of_brute_force(
    client: httpx.Client, model: str, filters: dict[str, Any]
) -> None:
    brute = BruteForce(ROOT / "artifacts" / model / "1")
    encoded = Engine.open(ROOT / "artifacts" / model).encode(HISTORIES)
    users = recommend(client, model=model, **filters)["users"]
    for history, embedding, user in zip(HISTORIES, encoded.embeddings, users, strict=True):
        items = history["items"] if isinstance(history, dict) else history
        denied = items if "exclude_seen" in filters else filters.get("denied", [])
        expected = brute.best(embedding, 20, allowed=filters.get("allowed"), denied=denied)
        assert user["items"] == expected[0]
        np.testing.assert_allclose(user["scores"], expected[1], atol=1e-5)


def test_similar_items_are_those_of_brute_force(client: httpx.Client) -> None:
    body = {"model": "articles", "items": ["Sun", "x", "Batman"], "k": 5}
    response = client.post("/v1/similar", json=body)
    SimilarResponse.model_validate_json(response.content, strict=True)
    sun, unknown, batman = response.json()["items"]
    assert unknown == {"item": "x", "items": [], "scores": []}
    brute = BruteForce(ROOT / "artifacts/articles/1")
    for one in (sun, batman):
        items, scores = brute.like(one["item"], 5)
        assert one["items"] == items
        np.testing.assert_allclose(one["scores"], scores, atol=1e-6)


def test_a_user_has_the_id_the_counts_and_the_reasons(client: httpx.Client) -> None:
    answer = recommend(client, model="articles", with_reasons=True, k=3)
    assert (answer["model"], answer["recall"]) == ("articles", None)
    counts = [[user[name] for name in ("id", "used", "truncated", "unknown")]
              for user in answer["users"]]  # fmt: skip
    assert counts == [[None, 3, 0, 0], ["ann", 50, 10, 0], [None, 0, 0, 0], [None, 2, 0, 2]]
    for user in answer["users"]:
        weights = np.reshape(user["reasons"]["weights"], (3, user["used"]))
        assert len(user["reasons"]["items"]) == user["used"]
        total = weights.sum(axis=1) + user["reasons"]["base"]
        np.testing.assert_allclose(total, user["scores"], atol=1e-4)


def test_ten_are_recommended_unless_another_number_is_wanted(client: httpx.Client) -> None:
    (user,) = client.post("/v1/recommend", json={"histories": [[]]}).json()["users"]
    assert len(user["items"]) == len(user["scores"]) == 10
    assert "reasons" not in user


ID = "expected a string or an integer"
REFUSED: list[tuple[str, dict[str, Any], str, list[str | int]]] = [
    ("recommend", {"k": 0}, "k: expected an integer of at least 1, got 0", ["k"]),
    ("recommend", {"k": "5"}, 'k: expected an integer of at least 1, got "5"', ["k"]),
    ("recommend", {"k": 9}, "k is 9, limit 8", ["k"]),
    ("recommend", {"k": 7}, "the response has 21 recommended items, limit 20", ["k"]),
    ("recommend", {"denied": ["a", 1.5]}, f"denied 1: {ID}, got 1.5", ["denied", 1]),
    ("recommend", {"allowed": "a"}, 'allowed: expected a list of item ids, got "a"', ["allowed"]),
    (
        "recommend",
        {"allowed": ["item 1", "x"], "unknown_items": "error"},
        "allowed 1: unknown item 'x'",
        ["allowed", 1],
    ),
    ("similar", {"items": [None]}, f"item 0: {ID}, got null", ["items", 0]),
    ("similar", {}, "field 'items' is missing", ["items"]),
    ("similar", {"items": ["a"] * 5, "k": 1}, "the request has 5 items, limit 4", ["items"]),
    ("similar", {"items": [], "k": 1, "exact": True}, "field 'exact' is not known", ["exact"]),
]


@pytest.mark.parametrize(
    ("verb", "body", "message", "path"), REFUSED, ids=[case[2] for case in REFUSED]
)
def test_an_invalid_request_is_told_the_place_the_value_and_the_limit(
    limited: httpx.Client, verb: str, body: dict[str, Any], message: str, path: list[str | int]
) -> None:
    histories = {"histories": [[], [], []], "k": 1} if verb == "recommend" else {}
    response = limited.post(f"/v1/{verb}", json=histories | body)
    assert response.status_code == 422
    error = response.json()["error"]
    assert (error["message"], error["path"]) == (message, path)


def test_recommendations_are_counted_with_the_other_requests(client: httpx.Client) -> None:
    recommend(client)
    client.post("/v1/similar", json={"items": []})
    lines = client.get("/metrics").text
    for verb in ("recommend", "similar"):
        assert f'persona_requests_total{{route="/v1/{verb}",status="200"}}' in lines
    assert 'persona_search_steps_total{model="news",version="1"}' in lines
