"""Baselines for the encoder: popularity, repeat-last, Markov chains and item-kNN.

Each is fitted on histories and scores every item of the catalogue as the next click of a
batch of histories. Histories may contain unknown items (index `n_items`). Popularity breaks ties.
"""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from model.clicks.histories import Histories, Int

Scores = NDArray[np.float32]
Float = NDArray[np.float64]
WEEK_SECONDS = 7 * 86_400.0
FIRST_SECOND = 1e8  # 1973, and the year 5138 in ms: between them a number is of seconds
NEWEST = 50  # clicks that item-kNN reads; with decay 0.8, the next weight is 1e-5


def click_counts(histories: Histories) -> Int:
    """Clicks on each item of the catalogue, (n_items,)."""
    return np.bincount(histories.items, minlength=histories.n_items + 1)[: histories.n_items]


def popularity_order(histories: Histories) -> Float:
    """Distinct numbers in (0, 1], (n_items,): greater for more clicks, then for a smaller index."""
    counts = click_counts(histories)
    order = np.lexsort((-np.arange(len(counts)), counts))
    place = np.empty(len(counts))
    place[order] = np.arange(1, len(counts) + 1) / len(counts)
    return place


def user_of_click(histories: Histories) -> Int:
    """Index of the user of each click, (clicks,)."""
    return np.repeat(np.arange(len(histories)), histories.lengths)


class Popularity:
    """The same scores for every history: P(i) = (clicks on i + 1) / (clicks + items) (Laplace)."""

    name = "popularity"

    def fit(self, train: Histories) -> Self:
        """Counts the clicks on each item."""
        counts = click_counts(train) + 1
        self.probabilities = counts / counts.sum()
        return self

    def scores(self, histories: Histories) -> Scores:
        """Probabilities (B, n_items)."""
        row = self.probabilities.astype(np.float32)
        return np.tile(row, (len(histories), 1))


class RecentPopularity:
    """Popularity over the newest training clicks: the last seven days, or the newest tenth.

    The tenth is used if the clicks span less than two weeks or the unit of time is unknown.
    """

    name = "popularity-recent"

    def fit(self, train: Histories) -> Self:
        """Counts the newest clicks on each item; older ones break ties."""
        times = seconds(train.columns["time"])
        newest, oldest = float(times.max()), float(times.min())
        known = newest > FIRST_SECOND and newest - oldest > 2 * WEEK_SECONDS
        since = newest - WEEK_SECONDS if known else float(np.quantile(times, 0.9))
        recent = train.items[times >= since]
        counts = np.bincount(recent, minlength=train.n_items + 1)[: train.n_items]
        self.order = (counts + popularity_order(train) / 2).astype(np.float32)
        return self

    def scores(self, histories: Histories) -> Scores:
        """Scores (B, n_items): clicks in the window, and below 1 the order of all clicks."""
        return np.tile(self.order, (len(histories), 1))


def seconds(times: NDArray[Any]) -> Float:
    """Times as seconds: of dates since 1970, of numbers by their size (s, ms, us or ns)."""
    if times.dtype.kind == "M":
        dates: Float = times.astype("datetime64[us]").astype(np.float64) / 1e6
        return dates
    numbers: Float = times.astype(np.float64)
    newest = float(np.abs(numbers).max(initial=0.0))
    for unit in (1e9, 1e6, 1e3):
        if newest > FIRST_SECOND * unit:
            return numbers / unit
    return numbers


class RepeatLast:
    """The newest item first, the others by popularity."""

    name = "repeat-last"

    def fit(self, train: Histories) -> Self:
        """Orders the items by popularity."""
        self.order = popularity_order(train).astype(np.float32)
        return self

    def scores(self, histories: Histories) -> Scores:
        """Scores (B, n_items) in (0, 2]."""
        scores = np.tile(self.order, (len(histories), 1))
        clicked = np.flatnonzero(histories.lengths > 0)
        newest = histories.items[histories.offsets[clicked + 1] - 1]
        known = newest < histories.n_items
        scores[clicked[known], newest[known]] += 1
        return scores


class Markov:
    """The next item given the newest one (order 1) or the two newest (order 2).

    Each order interpolates its counts with the next lower order, down to popularity. The weights
    are those of Witten and Bell (1991), which need no tuning:

        P(i | context) = (c(context, i) + t(context) P_lower(i)) / (c(context) + t(context))

    where c counts clicks after the context and t the distinct items among them. An unseen context
    has c = t = 0 and leaves the lower order unchanged. Each row of probabilities sums to 1.
    """

    def __init__(self, order: int = 1) -> None:
        self.name = f"markov-{order}"
        self.order = order

    def fit(self, train: Histories) -> Self:
        """Counts the items that follow each context of each order."""
        self.popularity = Popularity().fit(train)
        self.followers = [Followers(train, order) for order in range(1, self.order + 1)]
        return self

    def scores(self, histories: Histories) -> Scores:
        """Probabilities (B, n_items)."""
        scores = np.tile(self.popularity.probabilities, (len(histories), 1))
        for followers in self.followers:
            followers.interpolate(scores, histories)
        return scores.astype(np.float32)


class Followers:
    """Counts of the items that followed each context of `order` items."""

    def __init__(self, train: Histories, order: int) -> None:
        self.order = order
        self.base = train.n_items + 1
        end = np.arange(len(train.items))
        rank = end - np.repeat(train.offsets[:-1], train.lengths)
        end = end[(rank >= order) & (train.items < train.n_items)]
        pairs = self.context(train.items, end) * self.base + train.items[end]
        pairs, self.counts = np.unique(pairs, return_counts=True)
        self.items = pairs % self.base
        self.contexts, start = np.unique(pairs // self.base, return_index=True)
        self.offsets = np.append(start, len(pairs))

    def context(self, items: NDArray[np.int32], end: Int) -> Int:
        """One number for the `order` items before each position, unknown items included."""
        code = np.zeros(len(end), np.int64)
        for back in range(self.order, 0, -1):
            code = code * self.base + items[end - back]
        return code

    def interpolate(self, scores: Float, histories: Histories) -> None:
        """Mixes this order's counts into the lower order's probabilities (B, n_items)."""
        rows = np.flatnonzero(histories.lengths >= self.order)
        if len(self.contexts) == 0 or len(rows) == 0:
            return
        context = self.context(histories.items, histories.offsets[rows + 1])
        place = np.minimum(np.searchsorted(self.contexts, context), len(self.contexts) - 1)
        seen = self.contexts[place] == context
        rows, place = rows[seen], place[seen]
        distinct = np.diff(self.offsets)[place]
        total = np.add.reduceat(self.counts, self.offsets[:-1])[place] + distinct
        scores[rows] *= (distinct / total)[:, None]
        pair = np.repeat(self.offsets[place], distinct) + ranks_within(distinct)
        scores[np.repeat(rows, distinct), self.items[pair]] += self.counts[pair] / np.repeat(
            total, distinct
        )


class ItemKNN:
    """Sums cosine similarities to the clicked items, where an item is its set of users.

    A click adds to the scores of other items, not to its own. Its weight is `decay` to the power
    of the number of later clicks. Memory is 4 n_items^2 bytes, 400 MB at 10,000 items. Time grows
    with the sum over users of their distinct items squared.
    """

    name = "item-knn"

    def __init__(self, decay: float = 0.5) -> None:
        self.decay = decay

    def fit(self, train: Histories) -> Self:
        """Counts the users of each pair of items."""
        users, items = distinct_items(train)
        together = np.zeros((train.n_items, train.n_items), np.float32)
        for part in parts_of_users(users):
            count_pairs(together, users[part], items[part])
        norm = np.sqrt(np.maximum(np.diag(together), 1))
        np.fill_diagonal(together, 0)
        together /= norm[:, None]
        together /= norm
        self.similarity = together
        self.order = popularity_order(train).astype(np.float32)
        return self

    def scores(self, histories: Histories) -> Scores:
        """Weighted sums of cosines (B, n_items), plus at most 1e-6 for popularity."""
        scores = np.tile(self.order * np.float32(1e-6), (len(histories), 1))
        for row in range(len(histories)):
            items = histories[row][::-1][:NEWEST]
            weights = self.decay ** np.arange(len(items), dtype=np.float32)
            known = items < histories.n_items
            scores[row] += weights[known] @ self.similarity[items[known]]
        return scores


def distinct_items(histories: Histories) -> tuple[Int, Int]:
    """Users and items of the distinct pairs of user and known item, sorted by user."""
    known = histories.items < histories.n_items
    pairs = np.unique(user_of_click(histories)[known] * histories.n_items + histories.items[known])
    return pairs // histories.n_items, pairs % histories.n_items


def parts_of_users(users: Int, pairs_at_once: int = 4_000_000) -> list[slice]:
    """Slices of whole users with about `pairs_at_once` pairs of items each; users are sorted."""
    if len(users) == 0:
        return []
    _, start, length = np.unique(users, return_index=True, return_counts=True)
    part = np.cumsum(length * length) // pairs_at_once
    first = start[np.flatnonzero(np.diff(part, prepend=-1))]
    ends = np.append(first[1:], len(users))
    return [slice(a, b) for a, b in zip(first.tolist(), ends.tolist(), strict=True)]


def count_pairs(together: Scores, users: Int, items: Int) -> None:
    """Adds 1 at (i, j) for every user who clicked both."""
    _, start, length = np.unique(users, return_index=True, return_counts=True)
    partners = np.repeat(length, length)  # of each click: the number of its user's items
    left = np.repeat(items, partners)
    right = items[np.repeat(np.repeat(start, length), partners) + ranks_within(partners)]
    np.add.at(together, (left, right), np.float32(1))


def ranks_within(lengths: Int) -> Int:
    """0, 1, ..., length - 1 for each length, concatenated."""
    return np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
