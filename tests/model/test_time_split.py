"""The split by time: nothing that is trained on is younger than a test target."""

import numpy as np
import pytest

from model.clicks.histories import Histories
from model.clicks.time_split import borders, by_time
from model.errors import DataError
from tests.small import of


def timed(*rows: list[tuple[int, int]], n_items: int = 20) -> Histories:
    """Users whose clicks are pairs of time and item."""
    found = of(*([item for _, item in row] for row in rows), n_items=n_items)
    times = np.array([time for row in rows for time, _ in row], np.int64)
    return Histories(found.user_ids, found.item_ids, found.items, found.offsets, {"time": times})


HISTORIES = timed(
    [(0, 1), (1, 2), (2, 3), (16, 4), (18, 5), (19, 6)],
    [(3, 1), (4, 2), (5, 3), (6, 4), (7, 5), (17, 7)],
    [(8, 1), (9, 2), (10, 3), (11, 4), (12, 5)],
    [(13, 8), (14, 8), (15, 9)],
)  # 20 clicks: validation are those at 16 and 17, the test those at 18 and 19


def test_training_ends_where_validation_begins() -> None:
    split = by_time(HISTORIES, 0.1)
    assert borders(HISTORIES, 0.1).validation == 16
    assert split.train.columns["time"].max() == 15
    assert [split.train[user].tolist() for user in range(3)] == [
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [1, 2, 3, 4, 5],
    ]


def test_validation_asks_for_the_last_click_of_its_window() -> None:
    cases = by_time(HISTORIES, 0.1).validation
    assert cases.targets.tolist() == [4, 7]
    assert cases.histories[1].tolist() == [1, 2, 3, 4, 5]


def test_the_test_asks_for_the_last_click_and_its_history_has_all_before() -> None:
    cases = by_time(HISTORIES, 0.1).test
    assert cases.targets.tolist() == [6]
    assert cases.histories[0].tolist() == [1, 2, 3, 4, 5]


def test_or_for_every_click() -> None:
    cases = by_time(HISTORIES, 0.1, "all").test
    assert cases.targets.tolist() == [5, 6]
    assert [cases.histories[case].tolist() for case in range(2)] == [[1, 2, 3, 4], [1, 2, 3, 4, 5]]


def test_users_who_come_later_are_tested_and_not_trained_on() -> None:
    late = timed(*([(t, 1)] for t in range(18)), [(18, 2), (19, 3)])
    split = by_time(late, 0.1, "all")
    assert split.test.targets.tolist() == [3]  # a first click has no history
    assert split.test.histories.user_ids == [18]
    assert 18 not in split.train.user_ids


def test_clicks_at_the_border_itself_are_all_on_one_side() -> None:
    tied = timed(*([(0, 1), (7, 2), (7, 3)] for _ in range(10)))
    split = by_time(tied, 0.2)
    assert set(split.train.columns["time"].tolist()) == {0}
    assert len(split.test.targets) == 10


def test_clicks_without_times_are_refused() -> None:
    with pytest.raises(DataError, match="name their column with --time"):
        by_time(of([1, 2, 3]), 0.1)
