"""Both clients against the real service on the tiny artifact."""

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from persona.client import AsyncClient, Client, Limits
from persona.client.options import RecommendOptions
from persona.contract import InvalidRequest, ItemId, ModelNotFound
from persona.engine import Engine
from persona.results import FullAttention, PooledAttention, Recommended
from tests.serving import running_service

HISTORIES = [["item 1", "item 2"], [], ["item 3"] * 30, ["no such item", "item 4"]]


@pytest.fixture(scope="module")
def url(tiny_artifacts: Path) -> Iterator[str]:
    with running_service(tiny_artifacts) as address:
        yield address


@pytest.fixture
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


def test_base64_gives_the_numbers_that_plain_json_gives(client: Client, url: str) -> None:
    answer = httpx.post(f"{url}/v1/encode", json={"histories": HISTORIES}).json()
    plain = np.array([user["embedding"] for user in answer["users"]], np.float32)
    np.testing.assert_allclose(client.encode(HISTORIES).embeddings, plain, atol=1e-6)


def test_a_history_in_parts_of_one_has_the_same_embedding_as_in_one_part(url: str) -> None:
    with Client(url, limits=Limits(histories=1)) as one_by_one, Client(url) as together:
        parts, whole = one_by_one.encode(HISTORIES), together.encode(HISTORIES)
    np.testing.assert_allclose(parts.embeddings, whole.embeddings, atol=1e-5)


def test_a_user_says_what_became_of_the_clicks(client: Client) -> None:
    users = client.encode([{"id": "ann", "items": HISTORIES[2]}, HISTORIES[3]]).users
    assert (users[0].id, users[0].used, users[0].truncated) == ("ann", 12, 18)
    assert (users[1].id, users[1].used, users[1].unknown) == (None, 2, 1)


def test_pooled_attention_of_each_head_sums_to_one(client: Client) -> None:
    for user in client.encode(HISTORIES, attention="pooled").users:
        assert isinstance(user.attention, PooledAttention)
        assert user.attention.weights.shape == (2, user.used)
        total = user.attention.weights.sum(axis=1) + user.attention.start
        np.testing.assert_allclose(total, 1, atol=1e-5)


def test_full_attention_has_every_block_and_rows_that_sum_to_one(client: Client) -> None:
    for user in client.encode(HISTORIES * 4, attention="full").users:
        assert isinstance(user.attention, FullAttention)
        assert user.attention.blocks.shape == (2, 2, 1 + user.used, 1 + user.used)
        np.testing.assert_allclose(user.attention.blocks.sum(axis=-1), 1, atol=1e-5)


def test_scores_follow_the_candidates(client: Client) -> None:
    shared = client.score(HISTORIES, ["item 5", "item 6"])
    own = client.score(HISTORIES, [["item 6", "item 5"]] * len(HISTORIES))
    for left, right in zip(shared.users, own.users, strict=True):
        np.testing.assert_allclose(left.scores, right.scores[::-1], atol=1e-5)


def test_an_unknown_item_can_be_refused_and_is_named(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="no such item") as caught:
        client.encode(HISTORIES, unknown_items="error")
    assert (caught.value.history, caught.value.click) == (3, 0)


def test_an_unknown_candidate_has_no_score_and_fails_nothing(client: Client) -> None:
    (user,) = client.score([["item 1"]], ["item 5", "new product"]).users
    assert np.isnan(user.scores).tolist() == [False, True]


def test_an_unknown_candidate_is_refused_when_asked_for(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="new product") as caught:
        client.score([["item 1"]], ["item 5", "new product"], unknown_items="error")
    assert (caught.value.history, caught.value.candidate) == (None, 1)


def test_the_client_and_the_engine_give_the_same_results(
    client: Client, tiny_artifacts: Path
) -> None:
    there = client.encode(HISTORIES, attention="pooled")
    here = Engine.open(tiny_artifacts).encode(HISTORIES, attention="pooled")
    assert (there.model, there.version) == (here.model, here.version)
    np.testing.assert_allclose(there.embeddings, here.embeddings, atol=1e-5)
    for left, right in zip(there.users, here.users, strict=True):
        assert isinstance(left.attention, PooledAttention)
        assert isinstance(right.attention, PooledAttention)
        np.testing.assert_allclose(left.attention.weights, right.attention.weights, atol=1e-5)
        assert (left.used, left.truncated) == (right.used, right.truncated)


def test_a_version_can_be_named(client: Client) -> None:
    assert client.encode([[]], version="1").version == "1"
    with pytest.raises(ModelNotFound, match="7"):
        client.encode([[]], version="7")


def test_an_unknown_model_is_named(client: Client) -> None:
    with pytest.raises(ModelNotFound, match="nobody"):
        client.encode([[]], model="nobody")


def test_the_models_on_offer_are_listed(client: Client) -> None:
    (model,) = client.models()
    assert (model.name, model.version, model.facts["n_items"]) == ("tiny", "1", 20)


def recommended(answer: Recommended) -> list[Any]:
    return [(user.items, user.scores.tolist(), user.unknown) for user in answer.users]


def test_the_client_recommends_what_the_engine_does(client: Client, tiny_artifacts: Path) -> None:
    engine = Engine.open(tiny_artifacts)
    options: list[RecommendOptions] = [
        {},
        {"exclude_seen": True},
        {"allowed": {"item 1", "item 7", "x"}},
        {"denied": np.array(["item 1"])},
    ]
    for given in options:
        there = client.recommend(HISTORIES, 5, **given)
        here = engine.recommend(HISTORIES, 5, **given)
        for left, right in zip(there.users, here.users, strict=True):
            assert (left.items, left.unknown) == (right.items, right.unknown)
            np.testing.assert_allclose(left.scores, right.scores, atol=1e-5)


def test_reasons_reach_the_client(client: Client) -> None:
    for user in client.recommend(HISTORIES, 5, with_reasons=True).users:
        assert user.reasons is not None
        assert user.reasons.base is not None
        total = user.reasons.base + user.reasons.weights.sum(axis=1)
        np.testing.assert_allclose(total, user.scores, atol=1e-4)


def test_recommendations_in_parts_are_those_in_one_part(url: str) -> None:
    with Client(url, limits=Limits(recommendations=5)) as one_by_one, Client(url) as together:
        parts, whole = one_by_one.recommend(HISTORIES, 5), together.recommend(HISTORIES, 5)
        assert recommended(parts) == recommended(whole)
        items = [f"item {number}" for number in range(4)]
        similar = [[one.items for one in c.similar(items, 3).items] for c in (one_by_one, together)]
    assert similar[0] == similar[1]


def test_an_unknown_item_of_a_filter_is_named_when_it_is_refused(client: Client) -> None:
    with pytest.raises(InvalidRequest, match="denied 1: unknown item 'x'") as caught:
        client.recommend([[]], denied=["item 1", "x"], unknown_items="error")
    assert (caught.value.part, caught.value.candidate) == ("denied", 1)


async def _recommended(url: str) -> tuple[list[Any], list[ItemId]]:
    async with AsyncClient(url) as client:
        similar = await client.similar(["item 1"], 3)
        return recommended(await client.recommend(HISTORIES, 5)), similar.items[0].items


def test_the_awaiting_client_recommends_too(client: Client, url: str) -> None:
    users, like = asyncio.run(_recommended(url))
    assert users == recommended(client.recommend(HISTORIES, 5))
    assert like == client.similar(["item 1"], 3).items[0].items


async def _twenty_at_once(url: str) -> list[float]:
    async with AsyncClient(url) as client:
        await client.wait_until_ready()
        answers = await asyncio.gather(*(client.encode([["item 1"]]) for _ in range(20)))
    return [float(np.abs(each.embeddings - answers[0].embeddings).max()) for each in answers]


def test_the_awaiting_client_sends_many_at_once(url: str) -> None:
    assert max(asyncio.run(_twenty_at_once(url))) < 1e-5
