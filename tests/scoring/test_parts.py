"""Parts of tables that yield their rows in batches of any size."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.scoring.encoding import batches
from persona.scoring.parts import Part, parts
from persona.tables import Batch, Reject

ROWS = st.lists(st.none() | st.integers(0, 30), max_size=60)  # clicks; None for a row to reject


@dataclass
class Rows:
    """A table of histories as a reader yields it."""

    clicks: Sequence[int | None]
    batch_rows: int
    kind: str = "histories"
    files: tuple[str, ...] = ("users.jsonl",)

    def __iter__(self) -> Iterator[Batch | Reject]:
        numbers = range(len(self.clicks))
        for first in numbers[:: self.batch_rows]:
            part = numbers[first : first + self.batch_rows]
            for row in part:
                if self.clicks[row] is None:
                    yield Reject(row, row + 1, "users.jsonl", None, "broken", "{")
            good = [row for row in part if self.clicks[row] is not None]
            if good:
                yield self._batch(good)

    def _batch(self, rows: list[int]) -> Batch:
        histories = [["a"] * (self.clicks[row] or 0) for row in rows]
        return Batch(rows, [row + 1 for row in rows], rows, histories, pa.table({"age": rows}))


def cut(clicks: Sequence[int | None], batch_rows: int, rows: int, limit: int) -> list[Part]:
    return list(parts(Rows(clicks, batch_rows), rows, limit))  # type: ignore[arg-type]  # as a table


@settings(deadline=None)
@given(ROWS, st.integers(1, 70), st.integers(1, 20), st.integers(1, 100))
def test_every_row_is_in_one_part_in_order(
    clicks: list[int | None], batch_rows: int, max_rows: int, max_clicks: int
) -> None:
    found = cut(clicks, batch_rows, max_rows, max_clicks)
    numbers = [
        row
        for part in found
        for row in sorted([*part.rows, *(reject.row for reject in part.rejects)])
    ]
    assert numbers == list(range(len(clicks)))
    assert [part.number for part in found] == list(range(len(found)))
    assert all(part.size <= max_rows for part in found)


@settings(deadline=None)
@given(ROWS, st.integers(1, 70), st.integers(1, 20), st.integers(1, 100))
def test_the_cuts_do_not_depend_on_the_batches(
    clicks: list[int | None], batch_rows: int, max_rows: int, max_clicks: int
) -> None:
    some = cut(clicks, batch_rows, max_rows, max_clicks)
    others = cut(clicks, 1, max_rows, max_clicks)
    assert [part.rows for part in some] == [part.rows for part in others]
    assert [part.rejects for part in some] == [part.rejects for part in others]


@settings(deadline=None)
@given(ROWS, st.integers(1, 70), st.integers(1, 20))
def test_columns_that_are_passed_through_stay_with_their_rows(
    clicks: list[int | None], batch_rows: int, max_rows: int
) -> None:
    for part in cut(clicks, batch_rows, max_rows, 50):
        ages = [age for table in part.passed for age in table["age"].to_pylist()]
        assert part.rows == ages == part.ids == [line - 1 for line in part.lines if line]


def test_a_part_ends_with_the_row_that_fills_it() -> None:
    found = cut([30, 30, 30, 0, 0], 10, 100, 50)
    assert [part.rows for part in found] == [[0, 1], [2, 3, 4]]


def test_a_table_without_rows_is_one_part() -> None:
    assert [part.size for part in cut([], 10, 10, 10)] == [0]


def test_the_rejects_of_clicks_come_as_they_are() -> None:
    table = Rows([None, 3, None, 4], 2, kind="clicks")
    (part,) = parts(table)  # type: ignore[arg-type]  # as a table
    assert ([reject.row for reject in part.rejects], part.rows) == ([0, 2], [1, 3])


@settings(deadline=None)
@given(st.lists(st.integers(0, 30), max_size=60), st.integers(1, 20), st.integers(1, 100))
def test_every_history_is_in_one_batch_of_like_lengths(
    lengths: list[int], max_rows: int, max_clicks: int
) -> None:
    found = list(batches(lengths, max_rows, max_clicks))
    assert sorted(at for batch in found for at in batch) == list(range(len(lengths)))
    spans = sorted((lengths[batch[0]], lengths[batch[-1]]) for batch in found)
    assert all(longest <= shortest for (_, longest), (shortest, _) in pairwise(spans))
    for batch in found:
        assert len(batch) <= max_rows
        assert len(batch) == 1 or sum(lengths[at] for at in batch) <= max_clicks


def test_short_and_long_batches_take_turns() -> None:
    assert list(batches([4, 3, 2, 1, 0], 1, 100)) == [[4], [0], [3], [1], [2]]
    assert list(batches([7], 1, 100)) == [[0]]
    assert not list(batches([], 1, 100))
