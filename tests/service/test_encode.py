"""`POST /v1/encode` against a real server on a real artifact."""

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.protocols.native.schema import EncodeResponse
from tests.serving import serving

LENGTHS = (3, 0, 12, 1, 7, 30, 12, 2, 5, 0, 11)
HISTORIES = [[f"item {(7 * n + at) % 20}" for at in range(n)] for n in LENGTHS]


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts) as running:
        yield running


def users_of(client: httpx.Client, histories: Any, **options: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/encode", json={"histories": histories, **options})
    assert response.status_code == 200, response.text
    users: list[dict[str, Any]] = response.json()["users"]
    return users


def embeddings_of(client: httpx.Client, histories: Any, **options: Any) -> NDArray[np.float64]:
    return np.array([user["embedding"] for user in users_of(client, histories, **options)])


def test_a_history_has_the_same_embedding_alone_and_among_others(client: httpx.Client) -> None:
    together = embeddings_of(client, HISTORIES)
    alone = np.concatenate([embeddings_of(client, [history]) for history in HISTORIES])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_small_batches_give_the_same_embeddings_as_large_ones(
    client: httpx.Client, tiny_artifacts: Path
) -> None:
    with serving(tiny_artifacts, max_batch_tokens=1) as one_by_one:
        split = embeddings_of(one_by_one, HISTORIES * 3)
    np.testing.assert_allclose(split, embeddings_of(client, HISTORIES * 3), atol=1e-5)


def test_results_come_in_the_order_of_the_histories_with_their_ids(client: httpx.Client) -> None:
    named = [{"id": f"visitor {n}", "items": history} for n, history in enumerate(HISTORIES)]
    users = users_of(client, [*named, HISTORIES[0], {"id": 7, "items": []}])
    assert [user["id"] for user in users] == [*(h["id"] for h in named), None, 7]
    assert [user["used"] for user in users[:-2]] == [min(12, length) for length in LENGTHS]


def test_base64_holds_the_same_numbers_as_floats(client: httpx.Client) -> None:
    encoded = users_of(client, HISTORIES, encoding="base64")
    decoded = [np.frombuffer(base64.b64decode(user["embedding"]), "<f4") for user in encoded]
    floats = embeddings_of(client, HISTORIES).astype(np.float32)
    np.testing.assert_array_equal(np.stack(decoded), floats)


def test_a_long_history_counts_as_its_newest_clicks(client: httpx.Client) -> None:
    long = [f"item {at % 20}" for at in range(50)]
    user, newest = users_of(client, [long, long[-12:]])
    assert (user["used"], user["truncated"]) == (12, 38)
    assert user["embedding"] == pytest.approx(newest["embedding"], abs=1e-5)


def test_an_empty_history_has_a_finite_embedding(client: httpx.Client) -> None:
    (user,) = users_of(client, [[]], attention="pooled")
    assert np.isfinite(user["embedding"]).all()
    assert user["attention"] == {"items": [], "weights": [[], []], "start": [1.0, 1.0]}


def test_no_histories_give_no_users(client: httpx.Client) -> None:
    assert users_of(client, []) == []


def test_pooled_weights_and_the_start_tokens_share_sum_to_1(client: httpx.Client) -> None:
    for user, history in zip(
        users_of(client, HISTORIES, attention="pooled"), HISTORIES, strict=True
    ):
        attention = user["attention"]
        assert attention["items"] == history[-12:]
        for weights, start in zip(attention["weights"], attention["start"], strict=True):
            assert len(weights) == user["used"]
            assert start + sum(weights) == pytest.approx(1, abs=1e-5)


def test_full_attention_is_square_in_the_used_clicks_and_its_rows_sum_to_1(
    client: httpx.Client,
) -> None:
    for user in users_of(client, HISTORIES, attention="full"):
        blocks = np.array(user["attention"]["blocks"])
        size = 1 + user["used"]
        assert blocks.shape == (2, 2, size, size)
        np.testing.assert_allclose(blocks.sum(-1), 1, atol=1e-5)


@pytest.mark.parametrize("attention", ["pooled", "full"])
def test_asking_for_weights_leaves_the_embedding_as_it_is(
    client: httpx.Client, attention: str
) -> None:
    weighted = embeddings_of(client, HISTORIES, attention=attention)
    np.testing.assert_allclose(weighted, embeddings_of(client, HISTORIES), atol=1e-5)


def test_unknown_items_are_a_token_by_default(client: httpx.Client) -> None:
    user, known = users_of(client, [["item 1", "nowhere", 1], ["item 1"]])
    assert (user["used"], user["truncated"], user["unknown"]) == (3, 0, 2)
    assert user["embedding"] != pytest.approx(known["embedding"], abs=1e-3)


def test_dropped_unknown_items_leave_no_trace_but_their_count(client: httpx.Client) -> None:
    history = ["nowhere", *HISTORIES[2], "nowhere"]
    user, known = users_of(client, [history, HISTORIES[2]], unknown_items="drop")
    assert (user["used"], user["truncated"], user["unknown"]) == (12, 0, 2)
    assert user["embedding"] == pytest.approx(known["embedding"], abs=1e-5)


def test_the_response_is_what_the_schema_says(client: httpx.Client) -> None:
    for attention in ("none", "pooled", "full"):
        body = {"model": "tiny", "histories": HISTORIES, "attention": attention}
        response = client.post("/v1/encode", json=body)
        assert response.headers["content-type"] == "application/json"
        EncodeResponse.model_validate_json(response.content, strict=True)
        assert response.json().keys() == {"model", "version", "users"}


def test_behind_a_proxy_fastapi_finds_the_route_and_the_answer_is_the_same(
    client: httpx.Client, tiny_artifacts: Path
) -> None:
    with serving(tiny_artifacts, root_path="/persona") as behind:
        assert users_of(behind, HISTORIES[:2]) == users_of(client, HISTORIES[:2])
        refused = behind.post("/v1/encode", json={"histories": 7})
    message = refused.json()["error"]["message"]
    assert message == "histories: expected a list of histories, got 7"
