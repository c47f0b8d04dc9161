"""Histories that come as arrays: the same embeddings, counts and refusals as of lists."""

import gc
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.coded import CodedHistories
from persona.contract import InvalidRequest, ItemId, UnknownItems
from persona.engine import Engine, Limits

IDS = st.sampled_from([*(f"item {n}" for n in range(6)), "unknown", "", "a\0b", 7])
HISTORIES = st.lists(st.lists(IDS, max_size=15), max_size=20)


@pytest.fixture(scope="module")
def engine(tiny_artifacts: Path) -> Engine:
    return Engine.open(tiny_artifacts)


@settings(deadline=None, max_examples=30)
@given(HISTORIES, HISTORIES)
def test_arrays_hold_the_same_histories(
    some: list[list[ItemId]], others: list[list[ItemId]]
) -> None:
    joined = CodedHistories.joined([CodedHistories.of(some), CodedHistories.of(others)[:]])
    assert list(joined) == [joined[at] for at in range(len(joined))] == some + others
    assert joined.lengths.tolist() == [len(history) for history in some + others]
    assert len(set(joined.words)) == len(joined.words)
    assert list(pickle.loads(pickle.dumps(joined))) == list(joined)


@settings(deadline=None, max_examples=30)
@given(HISTORIES, st.data())
def test_some_of_the_histories_can_be_taken(
    histories: list[list[ItemId]], data: st.DataObject
) -> None:
    chosen = data.draw(st.lists(st.sampled_from(range(len(histories))))) if histories else []
    taken = CodedHistories.of(histories).take(chosen)
    assert list(taken) == [histories[at] for at in chosen]


def test_only_the_ids_that_clicks_have_travel() -> None:
    histories = CodedHistories.of([["a", "b"], ["c"], ["b"]])
    assert CodedHistories.joined([histories[1:]]).words == ["b", "c"]


@pytest.mark.parametrize("unknown_items", ["token", "drop"])
def test_arrays_are_encoded_as_lists_are(engine: Engine, unknown_items: UnknownItems) -> None:
    draw = random.Random(0)
    ids: list[ItemId] = [*(f"item {n}" for n in range(20)), "unknown", 7]
    histories = [draw.choices(ids, k=draw.randrange(16)) for _ in range(300)]
    plain = engine.encode(histories, unknown_items=unknown_items)
    coded = engine.encode(CodedHistories.of(histories), unknown_items=unknown_items)
    np.testing.assert_allclose(coded.embeddings, plain.embeddings, atol=1e-6)
    assert [vars(user) for user in coded.users] == [vars(user) for user in plain.users]


def test_a_slice_of_a_table_is_encoded_as_its_own_histories(engine: Engine) -> None:
    histories: list[list[ItemId]] = [["item 1"], ["item 2", "item 3"], [], ["item 4"]]
    whole, part = CodedHistories.of(histories), slice(1, 3)
    piece = CodedHistories(whole.words, whole.codes, whole.offsets[1:4])
    expected = engine.encode(histories[part]).embeddings
    np.testing.assert_allclose(engine.encode(piece).embeddings, expected, atol=1e-6)


def test_an_unknown_item_is_refused_with_its_place(engine: Engine) -> None:
    histories: list[list[ItemId]] = [["item 1"], [], ["item 2", "gone"], ["gone"]]
    for asked in (histories, CodedHistories.of(histories)):
        with pytest.raises(InvalidRequest, match="history 2, item 1: unknown item 'gone'") as found:
            engine.encode(asked, unknown_items="error")
        assert (found.value.history, found.value.click) == (2, 1)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_histories=1), "the request has 2 histories, limit 1"),
        (Limits(max_history_items=20), "history 1 has 21 items, limit 20"),
    ],
    ids=["histories", "items of a history"],
)
def test_limits_hold_for_arrays(tiny_artifacts: Path, limits: Limits, message: str) -> None:
    engine = Engine.open(tiny_artifacts, limits=limits)
    with pytest.raises(InvalidRequest, match=message):
        engine.encode(CodedHistories.of([["item 1"], ["item 1"] * 21]))


def test_joining_leaves_nothing_to_the_garbage_collector() -> None:
    pieces = [CodedHistories.of([["a", "b"]]), CodedHistories.of([["b", "c"]])]
    gc.collect()
    gc.disable()
    try:
        assert CodedHistories.joined(pieces).words == ["a", "b", "c"]
        assert gc.collect() == 0
    finally:
        gc.enable()
