"""Ranks from lists of recommended items equal those from all scores."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.clicks.histories import Cases, Histories, newest_click
from model.evaluation.baselines import RecentPopularity, seconds
from model.evaluation.metrics import evaluate_scorer, gains
from model.evaluation.rankings import Answer, ListRanker
from tests.small import of

N_ITEMS = 40


def random_cases() -> Cases:
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, N_ITEMS, n).tolist() for n in rng.integers(2, 60, 80)]
    return newest_click(of(*rows, n_items=N_ITEMS))


class Distinct:
    """Scores of random vectors, which have no ties."""

    name = "distinct"
    table = np.random.default_rng(1).standard_normal((N_ITEMS, 8)).astype(np.float32)

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        rows = [self.table[histories[user]].sum(0) for user in range(len(histories))]
        return np.stack(rows) @ self.table.T


def listing(scorer: Distinct) -> ListRanker:
    """A service that recommends what the scorer scores highest."""

    def recommend(rows: list[Any], k: int, hides: bool) -> list[Answer]:
        answers: list[Answer] = []
        asked = of(*rows, n_items=N_ITEMS)  # these ids are their rows
        for row, scores in zip(rows, scorer.scores(asked), strict=True):
            order = [item for item in np.argsort(-scores).tolist() if not hides or item not in row]
            answers.append((order[:k], scores[order[:k]]))
        return answers

    return ListRanker("service", recommend)


@pytest.mark.parametrize("remove_seen", [False, True])
def test_lists_give_the_metrics_and_the_coverage_of_scores(remove_seen: bool) -> None:
    cases, scorer = random_cases(), Distinct()
    expected = evaluate_scorer(scorer, cases, remove_seen)
    found = evaluate_scorer(listing(scorer), cases, remove_seen)
    assert found.metrics == expected.metrics
    np.testing.assert_array_equal(gains(found.ranks, "MRR", 20), gains(expected.ranks, "MRR", 20))
    if not remove_seen:  # of a repeated target, a list shows it and the scores do not
        assert found.coverage[20] == expected.coverage[20]


def dated(days: list[float], items: list[int], unit: float = 1.0) -> Histories:
    found = of(*([item] for item in items), n_items=4)
    times = ((1e9 + np.array(days) * 86_400) * unit).astype(np.int64)
    return Histories(found.user_ids, found.item_ids, found.items, found.offsets, {"time": times})


@pytest.mark.parametrize("unit", [1.0, 1e3, 1e6, 1e9], ids=["s", "ms", "us", "ns"])
def test_recent_popularity_counts_the_last_seven_days(unit: float) -> None:
    train = dated([0, 1, 2, 93.5, 99, 100], [0, 0, 0, 1, 1, 2], unit)
    scores = RecentPopularity().fit(train).scores(of([], n_items=4))[0]
    assert np.argsort(-scores).tolist() == [1, 2, 0, 3]


def test_of_a_short_log_it_counts_the_newest_tenth() -> None:
    train = dated([n / 100 for n in range(20)], [0] * 18 + [1, 1])
    scores = RecentPopularity().fit(train).scores(of([], n_items=4))[0]
    assert scores.argmax() == 1


def test_dates_are_seconds_since_1970() -> None:
    assert seconds(np.array(["1970-01-02", "2001-09-09"], "M8[ns]")).tolist() == [86400, 999993600]
