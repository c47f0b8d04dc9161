"""Histories, their splits and batches, against plain lists of lists."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.clicks.histories import (
    Histories,
    held_out_users,
    leave_one_out,
    length_grouped,
    newest_click,
    pad,
)
from model.clicks.readers import read_clicks
from tests.small import of

ROWS = st.lists(st.lists(st.integers(0, 4), max_size=7), max_size=10)


def lists(histories: Histories) -> list[list[int]]:
    return [histories[u].tolist() for u in range(len(histories))]


def test_offsets_that_miss_clicks_are_refused() -> None:
    with pytest.raises(ValueError, match="offsets end at 1, items at 2"):
        Histories(["ann"], ["a"], np.zeros(2, np.int32), np.array([0, 1]))


def test_offsets_for_other_users_are_refused() -> None:
    with pytest.raises(ValueError, match="2 users need 3 offsets"):
        Histories(["ann", "bob"], ["a"], np.zeros(1, np.int32), np.array([0, 1]))


@given(rows=ROWS, data=st.data())
@settings(deadline=None)
def test_select_takes_any_users_in_any_order(rows: list[list[int]], data: st.DataObject) -> None:
    users = data.draw(st.lists(st.integers(0, len(rows) - 1)) if rows else st.just([]))
    chosen = of(*rows).select(np.array(users, np.int64))
    assert lists(chosen) == [rows[u] for u in users]
    assert list(chosen.user_ids) == users


@given(rows=ROWS, clicks=st.integers(0, 9))
@settings(deadline=None)
def test_without_newest_cuts_the_end_of_every_history(rows: list[list[int]], clicks: int) -> None:
    expected = [row[: max(len(row) - clicks, 0)] for row in rows]
    assert lists(of(*rows).without_newest(clicks)) == expected


@given(rows=ROWS)
@settings(deadline=None)
def test_leave_one_out_asks_for_the_two_newest_clicks(rows: list[list[int]]) -> None:
    split = leave_one_out(of(*rows))
    asked = [row for row in rows if len(row) >= 3]
    assert lists(split.train) == [row[:-2] if len(row) >= 3 else row for row in rows]
    assert lists(split.validation.histories) == [row[:-2] for row in asked]
    assert split.validation.targets.tolist() == [row[-2] for row in asked]
    assert lists(split.test.histories) == [row[:-1] for row in asked]
    assert split.test.targets.tolist() == [row[-1] for row in asked]


def test_held_out_users_are_never_trained_on() -> None:
    split = held_out_users(of(*([1, 2] for _ in range(100))), 0.2, seed=0)
    groups = [split.train, split.validation.histories, split.test.histories]
    assert [len(group) for group in groups] == [60, 20, 20]
    assert sorted(user for group in groups for user in group.user_ids) == list(range(100))


def test_users_with_a_single_click_are_not_asked() -> None:
    cases = newest_click(of([1], [], [2, 3]))
    assert lists(cases.histories) == [[2]]
    assert cases.targets.tolist() == [3]


@pytest.mark.parametrize("side", ["left", "right"])
@given(rows=ROWS, max_length=st.integers(1, 5))
@settings(deadline=None)
def test_padding_keeps_the_newest_clicks_under_the_mask(
    side: str, rows: Sequence[list[int]], max_length: int
) -> None:
    item_ids, mask = pad([np.array(row, np.int32) for row in rows], max_length, side)
    kept = [item_ids[b, mask[b]].tolist() for b in range(len(rows))]
    assert kept == [row[-max_length:] for row in rows]
    assert item_ids.shape[1] == max([1, *(min(len(row), max_length) for row in rows)])


@pytest.mark.parametrize(("side", "mask"), [("left", [False, True]), ("right", [True, False])])
def test_padding_stands_on_the_asked_side(side: str, mask: list[bool]) -> None:
    rows = [np.array([1], np.int32), np.array([1, 2], np.int32)]
    assert pad(rows, 9, side)[1][0].tolist() == mask


@given(
    lengths=st.lists(st.integers(0, 30), max_size=60),
    max_batch_tokens=st.integers(1, 90),
    max_batch=st.integers(1, 9),
    shuffled=st.booleans(),
)
@settings(deadline=None)
def test_batches_hold_every_row_once_and_keep_the_budget(
    lengths: list[int], max_batch_tokens: int, max_batch: int, shuffled: bool
) -> None:
    row_lengths = np.array(lengths, np.int64)
    rng = np.random.default_rng(0) if shuffled else None
    batches = list(length_grouped(row_lengths, max_batch_tokens, max_batch, rng))
    assert sorted(row for batch in batches for row in batch.tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_batch
        # A row longer than the budget goes alone.
        assert len(batch) == 1 or len(batch) * row_lengths[batch].max() <= max_batch_tokens


def test_shuffled_batches_differ_from_epoch_to_epoch() -> None:
    lengths, rng = np.full(40, 3), np.random.default_rng(0)
    first, second = (np.concatenate(list(length_grouped(lengths, 12, 4, rng))) for _ in range(2))
    assert first.tolist() != second.tolist()


def test_further_columns_of_a_click_go_where_its_item_goes(tmp_path: Path) -> None:
    clicks = tmp_path / "clicks.csv"
    rows = ["ann,a,30", "bob,b,5", "ann,b,10", "ann,c,20", "bob,c,7"]
    clicks.write_text("\n".join(["user,item,time", *rows, ""]))
    histories, _ = read_clicks(clicks)
    assert histories.columns["time"].tolist() == [10, 20, 30, 5, 7]
    assert histories.without_newest().columns["time"].tolist() == [10, 20, 5]
    chosen = histories.select(np.array([1, 0]))
    assert chosen.columns["time"].tolist() == [5, 7, 10, 20, 30]


def test_a_window_that_moves_in_steps_begins_at_a_multiple_of_the_step() -> None:
    rows = [np.arange(n) for n in (5, 6, 7, 8, 9)]
    item_ids, key_mask = pad(rows, 5, step=3)
    assert item_ids[:, 0].tolist() == [0, 3, 3, 3, 6]
    assert key_mask.sum(1).tolist() == [5, 3, 4, 5, 3]
