"""`POST /v1/score`, by dot products and by source-target attention."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from export.write import Description, write_artifact
from model.network.config import EncoderConfig
from persona.artifact import open_artifact
from persona.engine.answers import CANDIDATES_AT_ONCE
from service.protocols.native.schema import ScoreResponse
from tests.conftest import TINY_ITEMS, random_encoder
from tests.serving import serving

HISTORIES = [["item 1", "item 2", "item 3"], [], ["item 4"] * 20]
CANDIDATES = ["item 5", "item 1", "item 19"]


@pytest.fixture(scope="module")
def plain(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts) as running:
        yield running


@pytest.fixture(scope="module")
def source_target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    config = EncoderConfig(attention="source_target", width=16, heads=2, max_length=12)
    root = tmp_path_factory.mktemp("source-target")
    about = Description("candidates", description="A random encoder that scores candidates.")
    write_artifact(random_encoder(config, len(TINY_ITEMS)), TINY_ITEMS, about, root)
    with serving(root) as running:
        yield running


def score(client: httpx.Client, histories: Any, candidates: Any, **options: Any) -> Any:
    body = {"histories": histories, "candidates": candidates, **options}
    response = client.post("/v1/score", json=body)
    assert response.status_code == 200, response.text
    ScoreResponse.model_validate_json(response.content, strict=True)
    return response.json()["users"]


def test_plain_scores_are_dot_products_with_the_user_embedding(
    plain: httpx.Client, tiny_artifact: Path
) -> None:
    users = plain.post("/v1/encode", json={"histories": HISTORIES}).json()["users"]
    table = open_artifact(tiny_artifact).item_embeddings()[[5, 1, 19]]
    for user, scored in zip(users, score(plain, HISTORIES, CANDIDATES), strict=True):
        assert scored["scores"] == pytest.approx(table @ np.array(user["embedding"]), abs=1e-4)
        assert [scored[name] for name in ("used", "truncated")] == [user["used"], user["truncated"]]


@pytest.mark.parametrize("kind", ["plain", "source_target"])
def test_each_history_can_have_candidates_of_its_own(
    kind: str, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue(kind)
    shared = score(client, HISTORIES, CANDIDATES)
    own = score(client, HISTORIES, [CANDIDATES, [], CANDIDATES[1:]])
    assert own[0]["scores"] == pytest.approx(shared[0]["scores"], abs=1e-5)
    assert own[1]["scores"] == []
    assert own[2]["scores"] == pytest.approx(shared[2]["scores"][1:], abs=1e-5)


def test_no_candidates_give_no_scores(plain: httpx.Client) -> None:
    assert [user["scores"] for user in score(plain, HISTORIES, [])] == [[], [], []]


def test_attention_of_candidates_covers_the_used_clicks_and_sums_to_1(
    source_target: httpx.Client,
) -> None:
    for user in score(source_target, HISTORIES, CANDIDATES, attention=True):
        weights = np.array(user["attention"]["weights"]).reshape(3, 2, user["used"])
        assert len(user["attention"]["items"]) == user["used"]
        expected = 1 if user["used"] else 0
        np.testing.assert_allclose(weights.sum(-1), expected, atol=1e-5)


def test_scores_by_attention_do_not_depend_on_batch_mates(source_target: httpx.Client) -> None:
    together = score(source_target, HISTORIES, CANDIDATES)
    for history, user in zip(HISTORIES, together, strict=True):
        (alone,) = score(source_target, [history], CANDIDATES)
        assert user["scores"] == pytest.approx(alone["scores"], abs=1e-5)


def test_many_candidates_are_scored_in_pieces_with_the_same_result(
    source_target: httpx.Client,
) -> None:
    many = [f"item {n % 20}" for n in range(2 * CANDIDATES_AT_ONCE + 3)]
    (user,) = score(source_target, HISTORIES[:1], many, attention=True)
    (few,) = score(source_target, HISTORIES[:1], many[:20])
    assert len(user["scores"]) == len(user["attention"]["weights"]) == 2 * CANDIDATES_AT_ONCE + 3
    assert user["scores"][2 * CANDIDATES_AT_ONCE - 12 :][:15] == pytest.approx(
        [few["scores"][(2 * CANDIDATES_AT_ONCE - 12 + n) % 20] for n in range(15)], abs=1e-5
    )


@pytest.mark.parametrize("kind", ["plain", "source_target"])
@pytest.mark.parametrize("unknown_items", ["token", "drop"])
def test_an_unknown_candidate_has_no_score_and_the_others_keep_theirs(
    kind: str, unknown_items: str, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue(kind)
    known = score(client, HISTORIES, CANDIDATES)
    mixed = score(client, HISTORIES, ["new", *CANDIDATES, "newer"], unknown_items=unknown_items)
    for user, expected in zip(mixed, known, strict=True):
        assert (user["scores"][0], user["scores"][-1]) == (None, None)
        assert user["scores"][1:-1] == pytest.approx(expected["scores"], abs=1e-5)


def test_an_unknown_candidate_has_no_weights(source_target: httpx.Client) -> None:
    (user,) = score(source_target, HISTORIES[:1], ["item 5", "new"], attention=True)
    assert np.sum(user["attention"]["weights"][0]) == pytest.approx(2, abs=1e-5)  # a head each
    assert np.sum(user["attention"]["weights"][1]) == 0


@pytest.mark.parametrize("kind", ["plain", "source_target"])
def test_without_candidates_unknown_clicks_are_counted_all_the_same(
    kind: str, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue(kind)
    (user,) = score(client, [["item 1", "never seen"]], [])
    assert (user["used"], user["unknown"], user["scores"]) == (2, 1, [])
