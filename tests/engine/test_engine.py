"""The engine in process: no service, no JSON, NumPy arrays out."""

import asyncio
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from persona.artifact import ArtifactError
from persona.contract import (
    ITEM_ID,
    DeadlineExceeded,
    Embeddings,
    InvalidRequest,
    ModelNotFound,
    Query,
    Scores,
)
from persona.engine import Engine, Limits
from persona.engine.batcher import RunStats
from persona.results import FullAttention, PooledAttention
from tests.serving import serving

HISTORIES = [["item 1", "item 2"], [], ["item 3"] * 20, ["never seen", "item 4"]]


@pytest.fixture(scope="module")
def engine(tiny_artifacts: Path) -> Engine:
    return Engine.open(tiny_artifacts)


def test_it_answers_what_the_service_answers(engine: Engine, tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts) as client:
        users = client.post("/v1/encode", json={"histories": HISTORIES}).json()["users"]
    encoded = engine.encode(HISTORIES)
    assert (encoded.model, encoded.version) == ("tiny", "1")
    np.testing.assert_allclose(encoded.embeddings, [user["embedding"] for user in users], atol=1e-5)
    counts = [(user.used, user.truncated, user.unknown) for user in encoded.users]
    assert counts == [(user["used"], user["truncated"], user["unknown"]) for user in users]


@pytest.mark.parametrize("place", ["", "tiny", "tiny/1"], ids=["all", "a model", "a version"])
def test_a_root_a_model_and_a_version_can_be_opened(tiny_artifacts: Path, place: str) -> None:
    assert Engine.open(str(tiny_artifacts / place)).encode([[]]).embeddings.shape == (1, 16)


def test_histories_may_be_arrays_and_may_have_ids(engine: Engine) -> None:
    encoded = engine.encode([{"id": 7, "items": np.array(["item 1", "item 2"])}, HISTORIES[0]])
    assert [user.id for user in encoded.users] == [7, None]
    np.testing.assert_array_equal(encoded.embeddings[0], encoded.embeddings[1])


def test_a_history_is_the_same_alone_and_in_any_batch(tiny_artifacts: Path) -> None:
    small = Engine.open(tiny_artifacts, limits=Limits(max_batch_tokens=7))
    large = small.encode(HISTORIES * 30)
    for number, history in enumerate(HISTORIES):
        alone = small.encode([history]).embeddings[0]
        np.testing.assert_allclose(large.embeddings[number], alone, atol=1e-5)


def test_pooled_and_full_attention_are_arrays_without_padding(engine: Engine) -> None:
    pooled = engine.encode(HISTORIES, attention="pooled").users[0].attention
    assert isinstance(pooled, PooledAttention)
    assert (pooled.weights.shape, pooled.start.shape) == ((2, 2), (2,))
    full = engine.encode(HISTORIES, attention="full").users[1].attention
    assert isinstance(full, FullAttention)
    assert full.blocks.shape == (2, 2, 1, 1)


def test_scores_are_arrays_and_unknown_candidates_are_nan(engine: Engine) -> None:
    scored = engine.score(HISTORIES, ["item 5", "new"])
    assert [user.scores.shape for user in scored.users] == [(2,)] * 4
    assert np.isnan([user.scores[1] for user in scored.users]).all()
    own = engine.score(HISTORIES[:2], [["item 5"], []])
    assert [user.scores.shape for user in own.users] == [(1,), (0,)]


@pytest.mark.parametrize(
    ("histories", "place"),
    [([["item 1"], "item 2"], (1, None)), ([["item 1", 1.5]], (0, 1)), ([[True]], (0, 0))],
    ids=["a string", "a fraction", "a truth value"],
)
def test_a_wrong_history_is_refused_with_its_place(
    engine: Engine, histories: list[list[str]], place: tuple[int, int | None]
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        engine.encode(histories)
    assert (refused.value.history, refused.value.click) == place


def test_unknown_items_can_be_refused(engine: Engine) -> None:
    with pytest.raises(InvalidRequest, match="history 3, item 0: unknown item 'never seen'"):
        engine.encode(HISTORIES, unknown_items="error")


def test_unknown_models_and_versions_are_named(engine: Engine) -> None:
    with pytest.raises(ModelNotFound, match="no model 'films'; loaded: tiny"):
        engine.encode([[]], model="films")
    with pytest.raises(ModelNotFound, match="no version '9' of 'tiny'; loaded: 1"):
        engine.encode([[]], version="9")


def test_columns_that_a_model_does_not_read_are_ignored(engine: Engine) -> None:
    """Versions share requests: one may read time, and the other not."""
    clicks: dict[str, list[list[str | float]]] = {ITEM_ID: [["item 1"]], "time": [[1.5]]}
    more = engine.run(Query(clicks, now=[2.5])).histories[0].embedding
    plain = engine.run(Query({ITEM_ID: [["item 1"]]})).histories[0].embedding
    np.testing.assert_array_equal(more, plain)
    with pytest.raises(InvalidRequest, match="the request has no column 'item_id' of clicks"):
        engine.run(Query({}))


def test_submitted_queries_are_answered_together_on_the_loop(engine: Engine) -> None:
    async def main() -> None:
        queries = [
            Query({ITEM_ID: [history]}, want)
            for history in HISTORIES
            for want in (Embeddings(), Scores([["item 5"]]))
        ]
        answers = await asyncio.gather(*(engine.submit(query, 100) for query in queries))
        for query, answer in zip(queries, answers, strict=True):
            (result,), (expected,) = answer.histories, engine.run(query).histories
            for name in ("embedding", "scores"):
                actual = getattr(result, name)
                if actual is not None:
                    np.testing.assert_allclose(actual, getattr(expected, name), atol=1e-5)

    asyncio.run(main())


@pytest.mark.parametrize("shared", [True, False])
def test_a_large_query_lets_the_loop_turn_and_is_answered_alike(
    engine: Engine, shared: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.engine.model.TURN_S", 0.0)
    clicks = {ITEM_ID: [[f"item {n % 5}"] * (n % 4) for n in range(70)]}
    own = [[f"item {n % 7}", "item 1", "nothing"] for n in range(70)]
    query = Query(clicks, Scores([own[0]] * 70 if shared else own))
    turns = 0

    async def main() -> list[list[float]]:
        nonlocal turns
        future = engine.submit(query, deadline_s=60)
        while not future.done():
            await asyncio.sleep(0)
            turns += 1
        return [np.asarray(one.scores).tolist() for one in (await future).histories]

    expected = [np.asarray(one.scores).tolist() for one in engine.run(query).histories]
    np.testing.assert_allclose(asyncio.run(main()), expected, atol=1e-6)
    assert turns > 70  # reading and writing each history took at least one


def test_a_large_query_ends_with_its_deadline(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.engine.model.TURN_S", 0.0)

    async def main() -> None:
        await engine.submit(Query({ITEM_ID: [["item 1"]] * 70}), deadline_s=1e-9)

    with pytest.raises(DeadlineExceeded, match="no result within 0 ms"):
        asyncio.run(main())


@pytest.mark.parametrize(("name", "version"), [("tinyb", "1"), ("tiny", "7")])
def test_a_folder_with_another_name_than_the_manifest_is_refused(
    tiny_artifact: Path, tmp_path: Path, name: str, version: str
) -> None:
    shutil.copytree(tiny_artifact, tmp_path / name / version)
    (tmp_path / "default").write_text(name)
    with pytest.raises(ArtifactError, match="so the folder must end in tiny/1"):
        Engine.open(tmp_path)


def test_numbers_too_small_to_be_normal_are_zero_in_a_thread_that_says_so() -> None:
    script = (
        "import numpy as np; from persona.engine.session import flush_subnormals\n"
        "product = lambda: (np.full(1, 1e-20, np.float32) * np.float32(1e-19)).item()\n"
        "before = product(); flush_subnormals(); print(before > 0, product() == 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["True", "True"]


def test_an_engine_without_attention_encodes_the_same(tiny_artifacts: Path) -> None:
    plain = Engine.open(tiny_artifacts, attention=False)
    histories = [["item 1", "item 2"], []]
    expected = Engine.open(tiny_artifacts).encode(histories).embeddings
    np.testing.assert_array_equal(plain.encode(histories).embeddings, expected)
    with pytest.raises(InvalidRequest, match="carries no graph 'attention'"):
        plain.encode(histories, attention="pooled")


def test_the_engine_tells_what_each_run_took(tiny_artifacts: Path) -> None:
    runs: list[RunStats] = []
    engine = Engine.open(tiny_artifacts, on_run=lambda _name, _version, stats: runs.append(stats))
    engine.encode([["item 1"] * 3, ["item 2"] * 2])
    assert [(run.histories, run.tokens, run.computed_tokens) for run in runs] == [(2, 7, 8)]
