"""Recommendations in process: equal to brute force, on the artifacts that ship."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from export.write import Description, write_artifact
from model.network.config import EncoderConfig
from persona.contract import (
    ITEM_ID,
    DeadlineExceeded,
    Embeddings,
    InvalidRequest,
    ItemId,
    Overloaded,
    Query,
    Recommendations,
)
from persona.engine import Engine, Limits
from tests.brute_force import BruteForce
from tests.conftest import random_encoder
from tests.fences import ROOT

SHIPPED: dict[str, list[list[ItemId]]] = {
    "news": [["frontpage", "news"], [], ["sports"] * 300, ["no such section", "weather"]],
    "articles": [["Asteroid", "Sun", "Solar System"], [], ["England"] * 60, [7, "Batman"]],
}
FILTERS: dict[str, dict[str, Any]] = {
    "no filter": {},
    "seen items": {"exclude_seen": True},
    "denied": {"denied": ["news", "Earth", "no such item"]},
    "allowed": {"allowed": ["tech", "sports", "Earth", "Mars", "Latin", "no such item", "Mars"]},
    "allowed and denied": {"allowed": ["tech", "Earth", "Mars"], "denied": ["Mars", "tech"]},
    "nothing allowed": {"allowed": []},
    "only unknown ids": {"allowed": ["no such item"], "denied": [1]},
}


@pytest.fixture(scope="module")
def shipped() -> Engine:
    return Engine.open(ROOT / "artifacts")


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = EncoderConfig(attention="source_target", width=16, heads=2, max_length=12)
    root = tmp_path_factory.mktemp("source-target")
    items = [f"item {number}" for number in range(700)]  # three pieces of candidates
    write_artifact(random_encoder(config, len(items)), items, Description("candidates"), root)
    return root


@pytest.fixture(scope="module")
def source_target(candidates: Path) -> Engine:
    return Engine.open(candidates)


@pytest.mark.parametrize("k", [1, 10, 5000])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("model", SHIPPED)
def test_recommendations_are_those_of_brute_force(
    shipped: Engine, model: str, filters: str, k: int
) -> None:
    brute, options = BruteForce(ROOT / "artifacts" / model / "1"), dict(FILTERS[filters])
    recommended = shipped.recommend(SHIPPED[model], k, model=model, **options)
    embeddings = shipped.encode(SHIPPED[model], model=model).embeddings
    seen = options.pop("exclude_seen", False)
    for history, embedding, user in zip(SHIPPED[model], embeddings, recommended.users, strict=True):
        if seen:
            options["denied"] = history
        items, scores = brute.best(embedding, k, **options)
        assert user.items == items
        np.testing.assert_allclose(user.scores, scores, atol=1e-5)


@pytest.mark.parametrize("model", SHIPPED)
def test_similar_items_are_those_of_brute_force(shipped: Engine, model: str) -> None:
    brute = BruteForce(ROOT / "artifacts" / model / "1")
    wanted = [*brute.item_ids[:5], "no such item"]
    similar = shipped.similar(wanted, 20, model=model)
    assert [one.item for one in similar.items] == wanted
    for one in similar.items[:5]:
        items, cosines = brute.like(one.item, 20)
        assert one.items == items
        np.testing.assert_array_equal(one.scores, cosines)
    assert similar.items[5].items == []


def test_seen_are_also_the_clicks_that_were_too_old_to_read(shipped: Engine) -> None:
    (user,) = shipped.recommend([["weather", *["news"] * 300]], 100, exclude_seen=True).users
    assert (user.used, user.truncated) == (200, 101)
    assert {"weather", "news"}.isdisjoint(user.items)


def test_reasons_and_the_score_of_an_empty_history_sum_to_the_score(shipped: Engine) -> None:
    for model, histories in SHIPPED.items():
        users = shipped.recommend(histories, 7, model=model, with_reasons=True).users
        (cold,) = shipped.score([[]], [users[0].items], model=model).users
        for user in users:
            assert user.reasons is not None
            assert user.reasons.base is not None
            assert user.reasons.weights.shape == (7, user.used)
            total = user.reasons.base + user.reasons.weights.sum(axis=1)
            np.testing.assert_allclose(total, user.scores, atol=1e-4)
            if user is users[0]:
                np.testing.assert_allclose(user.reasons.base, cold.scores, atol=1e-4)


def test_a_reason_is_what_leaving_the_click_out_costs_and_an_equal_share_of_the_rest(
    shipped: Engine,
) -> None:
    history = ["Sun", "Earth", "Latin"]
    (user,) = shipped.recommend([history], 4, model="articles", with_reasons=True).users
    parts = [[], history, ["Earth", "Latin"], ["Sun", "Latin"], ["Sun", "Earth"]]
    scored = shipped.score(parts, user.items, model="articles").users
    empty, whole, *left_out = (one.scores for one in scored)
    lost = whole - np.stack(left_out)  # (3, 4)
    shared = (whole - empty - lost.sum(axis=0)) / 3
    assert user.reasons is not None
    np.testing.assert_allclose(user.reasons.weights.T, lost + shared, atol=1e-4)


def test_with_source_target_attention_all_candidates_are_scored(source_target: Engine) -> None:
    histories = [["item 1", "item 2"], [], ["item 3"] * 20]
    every = [f"item {number}" for number in range(700)]
    scored = source_target.score(histories, every)
    recommended = source_target.recommend(histories, 9, exclude_seen=True)
    for history, user, all_scores in zip(histories, recommended.users, scored.users, strict=True):
        order = sorted(range(700), key=lambda row: (-all_scores.scores[row], row))
        expected = [every[row] for row in order if every[row] not in history][:9]
        assert user.items == expected
        scores = all_scores.scores[[every.index(str(item)) for item in user.items]]
        np.testing.assert_allclose(user.scores, scores, atol=1e-6)


def test_with_source_target_attention_reasons_are_its_shares(source_target: Engine) -> None:
    histories = [["item 1", "item 2"], []]
    users = source_target.recommend(histories, 300, with_reasons=True).users
    scored = source_target.score(histories, [user.items for user in users], attention=True).users
    for user, expected in zip(users, scored, strict=True):
        assert user.reasons is not None
        assert expected.attention is not None
        assert user.reasons.base is None
        weights = expected.attention.weights.mean(axis=1)
        np.testing.assert_allclose(user.reasons.weights, weights, atol=1e-6)


def test_more_candidates_than_scores_allowed_are_refused(candidates: Path) -> None:
    engine = Engine.open(candidates, limits=Limits(max_scores=1000))
    with pytest.raises(InvalidRequest, match="the search has 1,400 scores, limit 1,000"):
        engine.recommend([[], []])
    few = [f"item {number}" for number in range(15)]
    assert len(engine.recommend([[], []], allowed=few).users[0].items) == 10


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("k", "k is 0, it must be at least 1", {"k": 0}),
    ("k", "k is 9, limit 8", {"k": 9}),
    ("k", "the response has 21 recommended items, limit 20", {"k": 7}),
    ("with_reasons", "the response has 24 reasons, limit 20", {"k": 6, "with_reasons": True}),
    ("allowed", "allowed 1: unknown item 'x'", {"allowed": ["item 1", "x"]}),
    ("denied", "denied 0: unknown item 'x'", {"denied": ["x"]}),
    ("denied", "denied 1 is a float, not a string or an integer", {"denied": ["item 1", 1.5]}),
]


@pytest.mark.parametrize(("part", "message", "options"), REFUSED, ids=[case[1] for case in REFUSED])
def test_what_is_too_much_or_unknown_is_refused(
    tiny_artifacts: Path, part: str, message: str, options: dict[str, Any]
) -> None:
    limits = Limits(max_k=8, max_recommendations=20, max_attention_values=20)
    histories = [["item 1", "item 2"], ["item 3", "item 4"], []]
    with pytest.raises(InvalidRequest) as refused:
        Engine.open(tiny_artifacts, limits=limits).recommend(
            histories, **({"k": 1} | options), unknown_items="error"
        )
    assert (refused.value.part, str(refused.value)) == (part, message)


def test_no_histories_have_no_recommendations(shipped: Engine) -> None:
    assert shipped.recommend([]).users == []
    assert shipped.similar([]).items == []


def recommend(history: list[ItemId], k: int = 5, **options: Any) -> Query:
    return Query({ITEM_ID: [history]}, Recommendations(k, **options), model="articles")


def test_submitted_queries_get_what_the_calling_thread_computes(shipped: Engine) -> None:
    queries = [recommend(h, reasons=r) for h in SHIPPED["articles"] for r in (False, True)]
    queries.append(Query({}, Recommendations(5, ["Sun"]), model="articles"))

    async def main() -> list[Any]:
        return await asyncio.gather(*(shipped.submit(query, 100) for query in queries))

    for query, answer in zip(queries, asyncio.run(main()), strict=True):
        (result,), (expected,) = answer.histories, shipped.run(query).histories
        assert result.recommended == expected.recommended
        assert result.scores is not None
        assert expected.scores is not None
        np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)
        if expected.reasons is not None:
            assert result.reasons is not None
            np.testing.assert_allclose(result.reasons, expected.reasons, atol=1e-4)


def test_a_large_search_lets_others_go_first(shipped: Engine) -> None:
    async def main() -> list[str]:
        order: list[str] = []
        histories: list[list[ItemId]] = [["Sun"]] * 500
        large = Query({ITEM_ID: histories}, Recommendations(100), model="articles")
        waiting = shipped.submit(large, 100)
        waiting.add_done_callback(lambda _: order.append("large"))
        await asyncio.sleep(0.001)
        small = shipped.submit(Query({ITEM_ID: [[]]}, Embeddings(), model="articles"), 100)
        small.add_done_callback(lambda _: order.append("small"))
        await asyncio.gather(waiting, small)
        return order

    assert asyncio.run(main()) == ["small", "large"]


def test_a_search_ends_with_its_deadline_and_when_nobody_waits(shipped: Engine) -> None:
    async def main() -> None:
        with pytest.raises(DeadlineExceeded, match="no result within 0 ms"):
            await shipped.submit(recommend(["Sun"]), 0)
        cancelled = shipped.submit(recommend(["Sun"]), 100)
        cancelled.cancel()
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        assert (await shipped.submit(recommend(["Sun"]), 100)).histories[0].recommended

    asyncio.run(main())


def test_too_many_searches_at_once_are_refused() -> None:
    engine = Engine.open(ROOT / "artifacts" / "articles", limits=Limits(max_queue_tokens=1000))

    async def main() -> None:
        first = engine.submit(recommend(["Sun"] * 40, reasons=True), 100)
        with pytest.raises(Overloaded, match="limit 1,000"):
            engine.submit(recommend(["Sun"] * 40, reasons=True), 100)
        await first
        await engine.submit(recommend(["Sun"]), 100)

    asyncio.run(main())
