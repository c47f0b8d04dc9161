"""Ranks and metrics against plain loops and figures worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.clicks.histories import Cases, Histories, newest_click
from model.evaluation.baselines import Markov, Popularity, RepeatLast
from model.evaluation.metrics import (
    Comparison,
    Estimate,
    Metrics,
    breakdown,
    compare,
    evaluate_scorer,
    log_losses,
    ranks,
    target_ranks,
)
from tests.small import of


def scores(*rows: list[float]) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.array(rows, np.float32)


def test_the_best_score_has_rank_one() -> None:
    assert ranks(scores([3, 2, 1], [3, 2, 1]), np.array([0, 2])).tolist() == [1, 3]


def test_ties_count_against_the_target() -> None:
    assert ranks(scores([1, 1, 1, 0]), np.array([0])).tolist() == [3]


def test_seen_items_leave_the_ranking_but_never_the_target() -> None:
    asked = of([0, 0, 4], [0, 2])
    given_scores = scores([4, 3, 2, 1], [4, 3, 2, 1])
    assert ranks(given_scores, np.array([2, 2]), asked).tolist() == [2, 2]
    assert given_scores[0, 0] == 4


def test_scores_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="1 scores of 2 are NaN"):
        ranks(scores([1, math.nan]), np.array([0]))


def test_a_target_outside_of_the_catalogue_is_refused() -> None:
    with pytest.raises(ValueError, match="targets reach 2, the catalogue has 2"):
        ranks(scores([1, 0]), np.array([2]))


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_ranks_are_those_of_a_plain_loop(data: st.DataObject) -> None:
    row = data.draw(st.lists(st.integers(0, 5), min_size=1, max_size=9))
    target = data.draw(st.integers(0, len(row) - 1))
    seen = data.draw(st.lists(st.integers(0, len(row)), max_size=5))
    others = [s for i, s in enumerate(row) if i != target and i not in seen]
    expected = 1 + sum(score >= row[target] for score in others)
    asked = of(seen, n_items=len(row))
    assert ranks(scores([*map(float, row)]), np.array([target]), asked).tolist() == [expected]


def test_metrics_have_their_textbook_values() -> None:
    metrics = Metrics.of(np.array([1, 2, 11]), ks=(1, 10))
    assert metrics["HR@1"] == pytest.approx(1 / 3)
    assert metrics["HR@10"] == pytest.approx(2 / 3)
    assert metrics["NDCG@10"] == pytest.approx((1 + 1 / math.log2(3)) / 3)
    assert metrics["MRR@10"] == pytest.approx(1.5 / 3)


def test_an_interval_is_the_mean_plus_and_minus_two_standard_errors() -> None:
    estimate = Metrics.of(np.array([1, 1, 30, 30]), ks=(10,)).estimates["HR@10"]
    assert estimate.standard_error == pytest.approx(math.sqrt(1 / 3) / 2)
    assert estimate.high - estimate.mean == pytest.approx(1.96 * estimate.standard_error, rel=1e-4)
    assert estimate.low == pytest.approx(1 - estimate.high)


def test_an_interval_is_written_for_readers_and_a_single_case_has_none() -> None:
    assert Estimate(0.5, 0.1, 0.304, 0.696).interval("{:+.2f}") == "95 % +0.30 to +0.70"
    assert Estimate.of(np.array([0.5])).interval() == "no interval from a single case"


def test_metrics_of_no_cases_are_unknown() -> None:
    metrics = Metrics.of(np.zeros(0, np.int64), ks=(10,))
    assert metrics.cases == 0
    assert math.isnan(metrics["HR@10"])


def test_a_scorer_that_is_better_for_most_users_differs_significantly() -> None:
    rng = np.random.default_rng(0)
    second = rng.integers(1, 50, 500)
    result = compare(np.maximum(second - 3, 1), second, "NDCG", 10)
    assert result.difference.low > 0
    assert result.p_value < 1e-6


@pytest.mark.parametrize(
    ("p_value", "text"),
    [(0.0234, "p = 0.023"), (1.0, "p = 1"), (0.0, "p < 0.0001"), (math.nan, "p unknown")],
)
def test_no_p_value_is_written_as_zero(p_value: float, text: str) -> None:
    assert Comparison(Estimate(0.1, 0.001, 0.09, 0.11), p_value).p_text == text


def test_the_same_ranks_do_not_differ() -> None:
    result = compare(np.array([1, 2, 3]), np.array([1, 2, 3]))
    assert (result.difference.mean, result.p_value) == (0, 1)


def test_by_chance_one_comparison_in_twenty_is_significant() -> None:
    rng = np.random.default_rng(0)
    values = [compare(*rng.integers(1, 30, (2, 200))).p_value for _ in range(400)]
    assert 0.02 < np.mean(np.array(values) < 0.05) < 0.09


def test_ranks_of_other_cases_cannot_be_paired() -> None:
    with pytest.raises(ValueError, match="1 ranks cannot be paired with 2"):
        compare(np.array([1]), np.array([1, 2]))


def test_a_breakdown_holds_every_case_once() -> None:
    buckets = breakdown(np.array([1, 9, 1]), np.array([0, 7, 300]), (0, 1, 5, 10), ks=(1,))
    assert [(b.low, b.high, b.metrics.cases) for b in buckets] == [
        (0, 1, 1),
        (5, 10, 1),
        (10, None, 1),
    ]
    assert [b.metrics["HR@1"] for b in buckets] == [1, 0, 1]


def random_cases() -> Cases:
    rng = np.random.default_rng(0)
    return newest_click(of(*(rng.integers(0, 8, n).tolist() for n in range(2, 60)), n_items=8))


@pytest.mark.parametrize("remove_seen", [False, True])
def test_batches_do_not_change_the_ranks(remove_seen: bool) -> None:
    cases = random_cases()
    scorer = Markov(2).fit(cases.histories)
    whole = evaluate_scorer(scorer, cases, remove_seen, batch=1000)
    parts = evaluate_scorer(scorer, cases, remove_seen, batch=3, max_batch_tokens=40)
    np.testing.assert_array_equal(whole.ranks, parts.ranks)
    assert whole.coverage == parts.coverage
    np.testing.assert_array_equal(target_ranks(scorer, cases, remove_seen), whole.ranks)


def test_a_sample_of_cases_keeps_histories_and_targets_together() -> None:
    cases = random_cases()
    sample = cases.sample(20, seed=1)
    whole = {tuple(cases.histories[i]): target for i, target in enumerate(cases.targets)}
    assert len(sample.targets) == len(sample.histories) == 20
    assert all(whole[tuple(sample.histories[i])] == sample.targets[i] for i in range(20))
    assert cases.sample(1000, seed=1) is cases


def test_coverage_is_the_share_of_items_that_anyone_is_shown() -> None:
    cases = Cases(of([0], [1], [1]), np.array([0, 1, 2]))
    evaluation = evaluate_scorer(RepeatLast().fit(cases.histories), cases, False, ks=(1, 10))
    assert evaluation.coverage == {1: 0.5, 10: 1.0}


def test_hidden_items_are_not_covered() -> None:
    cases = Cases(of([0, 1, 2]), np.array([3]))
    evaluation = evaluate_scorer(Popularity().fit(cases.histories), cases, True, ks=(1, 4))
    assert evaluation.coverage == {1: 0.25, 4: 0.25}


def test_log_loss_is_that_of_the_targets_probability() -> None:
    cases = Cases(of([], []), np.array([0, 3]))
    losses = log_losses(Popularity().fit(of([0, 0, 1])), cases)
    np.testing.assert_allclose(losses, [-math.log(3 / 7), -math.log(1 / 7)], rtol=1e-6)


def test_log_loss_of_scores_that_are_not_probabilities_is_refused() -> None:
    with pytest.raises(ValueError, match="repeat-last are not probabilities"):
        log_losses(RepeatLast().fit(of([0])), Cases(of([0]), np.array([0])))


def test_an_evaluation_of_no_cases_is_empty() -> None:
    nobody: Histories = of(n_items=3)
    evaluation = evaluate_scorer(Popularity().fit(nobody), Cases(nobody, np.zeros(0, int)), True)
    assert evaluation.metrics.cases == 0
