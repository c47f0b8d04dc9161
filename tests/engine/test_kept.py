"""What is kept of recent histories changes no answer, and leaves when it must."""

import asyncio
import gc
import weakref
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from export.write import Description, write_artifact
from model.network.config import EncoderConfig
from persona.contract import (
    ITEM_ID,
    Embeddings,
    Floats,
    ItemId,
    Query,
    Recommendations,
    Result,
    Scores,
)
from persona.engine import Engine, Limits
from persona.engine.kept import MOST_NEW, KeptHistories
from tests.conftest import TINY_ITEMS, random_encoder

ROOT = Path(__file__).parents[2]
DEADLINE_S = 60.0
MAX_LENGTH, STEP = 12, 4
KEEPING = Limits(kept_megabytes=10, kept_clicks=1)
FEW = Limits(kept_megabytes=0.03, kept_clicks=1)  # room for a few histories
TOLERANCE = 1e-5


@pytest.fixture(scope="session")
def stepping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose window moves in steps, and which ends in rotary positions."""
    root = tmp_path_factory.mktemp("artifacts")
    config = EncoderConfig(
        width=16, heads=2, blocks=2, max_length=MAX_LENGTH, window_step=STEP, positions="rotary"
    )
    encoder = random_encoder(config, len(TINY_ITEMS))
    return write_artifact(encoder, TINY_ITEMS, Description("stepping"), root)


@dataclass
class Clock:
    """A clock that stands still."""

    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def query(*histories: Sequence[ItemId]) -> Query:
    return Query({ITEM_ID: histories})


def kept_of(engine: Engine) -> KeptHistories:
    kept = engine.registry.models[0].kept
    assert kept is not None
    return kept


def submitted(engine: Engine, *queries: Query) -> list[list[Result]]:
    """The answers to queries that wait in the queue together."""

    async def main() -> list[list[Result]]:
        found = [engine.submit(one, DEADLINE_S) for one in queries]
        return [(await one).histories for one in found]

    return asyncio.run(main())


def assert_exact(engine: Engine, queries: Iterable[Query]) -> None:
    """Everything of an answer is as it is without anything kept."""
    queries = list(queries)
    for asked, results in zip(queries, submitted(engine, *queries), strict=True):
        for result, plain in zip(results, engine.run(asked).histories, strict=True):
            assert result.embedding is not None
            assert plain.embedding is not None
            np.testing.assert_allclose(result.embedding, plain.embedding, atol=TOLERANCE)
            assert list(result.items) == list(plain.items)
            assert (result.truncated, result.unknown) == (plain.truncated, plain.unknown)


class Visitors(RuleBasedStateMachine):
    """People who come back, in any order, with what they did since."""

    artifact: Path
    engines: dict[Limits, Engine]
    items = st.sampled_from([*TINY_ITEMS, "nobody knows it"])
    clicks = st.lists(items, min_size=1, max_size=MOST_NEW + 2)

    def __init__(self) -> None:
        super().__init__()
        self.histories: list[list[str]] = [[]]

    @initialize(limits=st.sampled_from([KEEPING, FEW]))
    def start(self, limits: Limits) -> None:
        self.limits = limits
        if limits not in self.engines:  # what earlier visitors left is there too
            self.engines[limits] = Engine.open(self.artifact, limits=limits)

    @property
    def engine(self) -> Engine:
        return self.engines[self.limits]

    @rule(clicks=st.lists(items, max_size=2 * MAX_LENGTH))
    def a_new_one(self, clicks: list[str]) -> None:
        self.histories.append(clicks)
        assert_exact(self.engine, [query(clicks)])

    @rule(who=st.integers(0, 99), clicks=clicks)
    def appended(self, who: int, clicks: list[str]) -> None:
        self.histories[who % len(self.histories)] += clicks
        assert_exact(self.engine, [query(self.histories[who % len(self.histories)])])

    @rule(who=st.integers(0, 99), oldest=st.integers(1, 2 * MAX_LENGTH), clicks=clicks)
    def branched(self, who: int, oldest: int, clicks: list[str]) -> None:
        self.histories.append(self.histories[who % len(self.histories)][:oldest] + clicks)
        assert_exact(self.engine, [query(self.histories[-1])])

    @rule(who=st.integers(0, 99), times=st.integers(1, 3))
    def repeated(self, who: int, times: int) -> None:
        assert_exact(self.engine, [query(self.histories[who % len(self.histories)])] * times)

    @rule(who=st.lists(st.integers(0, 99), min_size=2, max_size=6), clicks=clicks)
    def interleaved(self, who: list[int], clicks: list[str]) -> None:
        asked = []
        for one, click in zip(who, clicks * len(who), strict=False):
            self.histories[one % len(self.histories)].append(click)
            asked.append(query(list(self.histories[one % len(self.histories)])))
        assert_exact(self.engine, [*asked, query(*self.histories[:5])])

    @rule(chance=st.integers(1, 20))  # opening takes as long as many answers
    def after_a_reload(self, chance: int) -> None:
        if chance == 20:
            self.engines[self.limits] = Engine.open(self.artifact, limits=self.limits)

    def teardown(self) -> None:
        if hasattr(self, "limits"):
            kept = kept_of(self.engine)
            assert 0 <= kept.bytes <= kept.max_bytes


def visit(artifact: Path, examples: int) -> None:
    visitors = type("Visitors", (Visitors,), {"artifact": artifact, "engines": {}})
    chosen = settings(
        max_examples=examples,
        stateful_step_count=12,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(visitors, settings=chosen)


def test_every_answer_is_as_without_anything_kept(stepping: Path) -> None:
    visit(stepping, 12)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_ten_thousand_sequences_are_as_without_anything_kept(stepping: Path) -> None:
    visit(stepping, 10_000)


def test_positions_from_a_table_are_exact_too(tiny_artifact: Path) -> None:
    engine = Engine.open(tiny_artifact, limits=KEEPING)
    for n in range(1, 20):
        assert_exact(engine, [query(TINY_ITEMS[:n])])


def test_a_click_more_computes_one_click(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    submitted(engine, query(TINY_ITEMS[:9]))
    kept_of(engine).take_counts()
    submitted(engine, query(TINY_ITEMS[:10]))
    counts = kept_of(engine).take_counts()
    assert (counts.continued, counts.computed_clicks, counts.saved_clicks) == (1, 1, 9)


def test_equal_histories_in_the_queue_are_computed_once(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    first, second = submitted(engine, query(TINY_ITEMS[:9]), query(TINY_ITEMS[:9]))
    assert first[0].embedding is second[0].embedding


def test_a_known_history_waits_for_nothing(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    submitted(engine, query(TINY_ITEMS[:9]))

    async def main() -> bool:
        return engine.submit(query(TINY_ITEMS[:9]), DEADLINE_S).done()

    assert asyncio.run(main())


def test_a_longer_history_computes_one_click_until_its_window_moves(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    computed = []
    for n in range(MAX_LENGTH, MAX_LENGTH + 2 * STEP + 1):
        submitted(engine, query((TINY_ITEMS * 2)[:n]))
        computed.append(kept_of(engine).take_counts().computed_clicks)
    begun = MAX_LENGTH - STEP + 1
    assert computed == [MAX_LENGTH, *([begun] + [1] * (STEP - 1)) * 2]


def test_scores_and_recommendations_are_exact(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    wants: list[Scores | Recommendations] = [
        Scores([TINY_ITEMS]),
        Recommendations(5),
        Recommendations(5, reasons=True),
    ]
    for history in (TINY_ITEMS[:6], TINY_ITEMS[:7]):
        for want in wants:
            asked = Query({ITEM_ID: [history]}, want)
            ((result,),) = submitted(engine, asked)
            plain = engine.run(asked).histories[0]
            assert list(result.recommended) == list(plain.recommended)
            assert result.scores is not None
            assert plain.scores is not None
            np.testing.assert_allclose(result.scores, plain.scores, atol=1e-4)


@pytest.mark.parametrize("attention", ["pooled", "full"])
def test_attention_is_that_of_all_clicks(stepping: Path, attention: str) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    submitted(engine, query(TINY_ITEMS[:6]))
    asked = Query({ITEM_ID: [TINY_ITEMS[:7]]}, Embeddings(attention))  # type: ignore[arg-type]  # one of them
    ((result,),) = submitted(engine, asked)
    plain = engine.run(asked).histories[0]
    name = f"{attention}_attention"
    np.testing.assert_array_equal(getattr(result, name), getattr(plain, name))


def test_ids_that_look_alike_are_told_apart() -> None:
    kept = KeptHistories(10**6, 900)
    histories: list[list[ItemId]] = [["1", "2"], ["12"], ["1"], [1, 2], [12], ["", ""], [""]]
    keys = [found.key for found in map(kept.find, histories) if found]
    assert len(set(keys)) == len(histories)


@pytest.mark.parametrize("items", [[], ["a\0b"], ["a", 1], [1, "a"], [2**63]], ids=repr)
def test_what_cannot_be_told_from_others_is_not_kept(items: list[ItemId]) -> None:
    assert KeptHistories(10**6, 900).find(items) is None


def test_a_key_is_of_its_process_alone() -> None:
    keys = {found.key for _ in range(2) if (found := KeptHistories(1, 1).find(["a"]))}
    assert len(keys) == 2


def test_nothing_kept_holds_an_id(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=KEEPING)
    histories = ["a-very-private-item", *TINY_ITEMS[:5]]
    submitted(engine, query(histories))
    seen, left = set[int](), list[object]([kept_of(engine)])
    while left:  # all that it refers to
        one = left.pop()
        if id(one) not in seen and not isinstance(one, type):
            seen.add(id(one))
            assert not (isinstance(one, str) and one in histories)
            left += gc.get_referents(one) if not callable(one) else []


def keep(kept: KeptHistories, *histories: list[ItemId], positions: int = 4) -> None:
    for history in histories:
        found = kept.find(history)
        assert found is not None
        states: Floats = np.zeros((2, positions, 16), np.float32)
        kept.keep(found, states[0, 0], kept.begin(states))


def test_the_least_recently_used_leaves_first() -> None:
    kept = KeptHistories(0, 900)
    kept.max_bytes = 10**6
    keep(kept, ["a"])
    kept.max_bytes = 3 * kept.bytes
    keep(kept, ["b"], ["c"])
    kept.find(["a"])
    keep(kept, ["d"])
    assert len(kept) == 3
    found = {item: kept.find([item]) for item in "abcd"}
    assert [item for item, one in found.items() if one and one.before is None] == ["b"]


def test_the_budget_holds_however_lines_grow() -> None:
    kept, rng = KeptHistories(200_000, 900), np.random.default_rng(0)
    for _ in range(3000):
        history: list[ItemId] = rng.integers(0, 3, rng.integers(1, 9)).tolist()
        found = kept.find(history)
        assert found is not None
        new: Floats = np.ones((2, found.new, 16), np.float32)
        line = kept.continued(found.before, new) if found.before else kept.begin(new)
        kept.keep(found, new[0, 0] if found.new else np.ones(16, np.float32), line)
        assert kept.bytes <= kept.max_bytes


def test_nothing_outlives_its_time_however_often_it_is_used() -> None:
    clock = Clock()
    kept = KeptHistories(10**6, 100, clock=clock)
    keep(kept, ["a"])
    for clock.now in range(0, 100, 10):
        found = kept.find(["a"])
        assert found is not None
        assert found.before is not None
    clock.now = 100
    assert (late := kept.find(["a"])) is not None
    assert late.before is None
    kept.sweep()
    assert (len(kept), kept.bytes) == (0, 0)


def test_the_event_loop_sweeps_by_itself() -> None:
    async def main() -> None:
        kept = KeptHistories(10**6, 0.04)
        keep(kept, ["a"])
        for _ in range(3000):  # which only ends a test that hangs
            if not kept.bytes:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it is kept for ever")

    asyncio.run(main())


def test_a_version_that_nobody_uses_is_freed_with_all_that_it_kept(stepping: Path) -> None:
    async def main() -> None:
        engine = Engine.open(stepping, limits=KEEPING)
        await engine.submit(query(TINY_ITEMS[:9]), DEADLINE_S)
        kept = weakref.ref(kept_of(engine))
        del engine
        for _ in range(3000):  # the queue looks for late ones a little longer
            gc.collect()
            if kept() is None:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("something refers to it")

    asyncio.run(main())


def test_a_short_history_is_computed_as_ever(stepping: Path) -> None:
    engine = Engine.open(stepping, limits=Limits(kept_megabytes=10, kept_clicks=5))
    for n in (4, 5, 6):
        assert_exact(engine, [query(TINY_ITEMS[:n])])
    counts = kept_of(engine).take_counts()
    # The first that is long enough continues the start token, with all of its clicks.
    assert (counts.new, counts.continued, counts.computed_clicks) == (0, 2, 6)


def test_by_default_nothing_is_kept(stepping: Path) -> None:
    assert Engine.open(stepping).registry.models[0].kept is None


def test_a_model_without_the_graphs_keeps_nothing(timed_artifacts: Path) -> None:
    assert Engine.open(timed_artifacts, limits=KEEPING).registry.models[0].kept is None


@pytest.mark.parametrize("name", ["news", "articles"])
def test_the_shipped_models_can_keep_histories(name: str) -> None:
    engine = Engine.open(ROOT / "artifacts" / name, limits=KEEPING)
    items = list(engine.registry.find().artifact.item_ids)[:9]
    submitted(engine, query(items[:8]))
    ((result,),) = submitted(engine, query(items))
    counts = kept_of(engine).take_counts()
    assert (counts.saved_clicks, counts.computed_clicks) == (8, 9)
    assert result.embedding is not None
    whole = engine.encode([items]).embeddings[0]
    np.testing.assert_allclose(result.embedding, whole, atol=TOLERANCE)
