"""The baselines against counts made by hand and by plain loops."""

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.evaluation.baselines import ItemKNN, Markov, Popularity, RepeatLast
from tests.small import of

UNKNOWN = 4  # index of unknown items in a catalogue of four


RANDOM = st.lists(st.lists(st.integers(0, UNKNOWN), max_size=6), min_size=1, max_size=8)


def test_popularity_is_the_share_of_clicks_with_one_added_to_each() -> None:
    scores = Popularity().fit(of([0, 0, 1], [2, 0, UNKNOWN])).scores(of([], [3]))
    np.testing.assert_allclose(scores, 2 * [[4 / 9, 2 / 9, 2 / 9, 1 / 9]], rtol=1e-6)


def test_repeat_last_ranks_the_newest_item_first_and_the_rest_by_popularity() -> None:
    scores = RepeatLast().fit(of([0, 0, 0, 2, 2, 1])).scores(of([0, 3]))
    assert np.argsort(-scores[0]).tolist() == [3, 0, 2, 1]


@pytest.mark.parametrize("history", [[], [UNKNOWN], [1, UNKNOWN]])
def test_repeat_last_falls_back_to_popularity(history: list[int]) -> None:
    scores = RepeatLast().fit(of([2, 2, 1])).scores(of(history))
    assert np.argsort(-scores[0]).tolist() == [2, 1, 0, 3]


def test_markov_interpolates_counts_with_popularity_after_witten_and_bell() -> None:
    scores = Markov(1).fit(of([0, 1], [0, 1], [0, 2])).scores(of([3, 0]))
    popularity = np.array([4, 3, 2, 1]) / 10
    expected = (np.array([0, 2, 1, 0]) + 2 * popularity) / (3 + 2)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)


def test_second_order_markov_prefers_what_followed_the_two_newest_clicks() -> None:
    model = Markov(2).fit(of([0, 1, 2], [0, 1, 2], [3, 1, 3], [3, 1, 3], [2, 1, 2]))
    scores = model.scores(of([0, 1], [3, 1]))
    assert scores.argmax(axis=1).tolist() == [2, 3]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("history", [[], [UNKNOWN], [0, UNKNOWN], [3, 3]])
def test_markov_falls_back_to_popularity_after_an_unseen_context(
    order: int, history: list[int]
) -> None:
    train = of([0, 1, 0], [1, 2, 0])
    expected = Popularity().fit(train).scores(of(history))
    np.testing.assert_allclose(Markov(order).fit(train).scores(of(history)), expected, rtol=1e-6)


@given(train=RANDOM, asked=RANDOM)
@settings(max_examples=60, deadline=None)
def test_markov_gives_positive_probabilities_that_sum_to_one(
    train: list[list[int]], asked: list[list[int]]
) -> None:
    for order in (1, 2):
        scores = Markov(order).fit(of(*train)).scores(of(*asked))
        assert scores.min() > 0
        np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-5)


@given(train=RANDOM)
@settings(max_examples=60, deadline=None)
def test_markov_counts_what_a_plain_loop_counts(train: list[list[int]]) -> None:
    pairs = Counter(p for row in train for p in pairwise(row) if p[1] != UNKNOWN)
    scores = Markov(1).fit(of(*train)).scores(of(*([i] for i in range(4))))
    lower = Popularity().fit(of(*train)).scores(of([]))[0]
    for context in range(4):
        after = np.array([pairs[context, item] for item in range(4)])
        distinct = np.count_nonzero(after)
        expected = (after + distinct * lower) / (after.sum() + distinct) if distinct else lower
        np.testing.assert_allclose(scores[context], expected, rtol=1e-5)


@given(train=RANDOM)
@settings(max_examples=60, deadline=None)
def test_item_knn_holds_the_cosines_of_the_items_sets_of_users(train: list[list[int]]) -> None:
    clicked = np.array([[item in row for item in range(4)] for row in train], np.float64)
    norm = np.maximum(np.linalg.norm(clicked, axis=0), 1)
    expected = clicked.T @ clicked / norm / norm[:, None]
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(ItemKNN().fit(of(*train)).similarity, expected, atol=1e-6)


def test_item_knn_weighs_the_newest_click_most() -> None:
    model = ItemKNN(decay=0.5).fit(of([0, 1], [2, 3]))
    scores = model.scores(of([0, UNKNOWN, 2]))
    np.testing.assert_allclose(scores[0], [0, 0.25, 0, 1], atol=1e-5)


def test_item_knn_ranks_by_popularity_where_it_knows_nothing() -> None:
    scores = ItemKNN().fit(of([2, 1], [2])).scores(of([]))
    assert np.argsort(-scores[0]).tolist() == [2, 1, 0, 3]


@pytest.mark.parametrize("baseline", [Popularity(), RepeatLast(), Markov(1), Markov(2), ItemKNN()])
def test_every_baseline_scores_all_items_of_a_batch(
    baseline: Popularity | RepeatLast | Markov | ItemKNN,
) -> None:
    scores = baseline.fit(of([0, 1, 2], [])).scores(of([0, 1], [], [UNKNOWN]))
    assert scores.shape == (3, 4)
    assert scores.dtype == np.float32
    assert np.isfinite(scores).all()
