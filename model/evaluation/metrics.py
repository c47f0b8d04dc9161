"""Ranking metrics of the next item: HR, NDCG and MRR with every item ranked.

A case has one relevant item. At cutoff k a case of rank r counts 0 if r > k, and otherwise

    HR 1    NDCG 1 / log2(r + 1)    MRR 1 / r

Metrics are means over cases, one per user, with normal 95 % confidence intervals.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from model.clicks.histories import Cases, Histories, Int, length_grouped
from model.evaluation.rankings import Ranker

KS = (1, 5, 10, 20)
METRICS = {f"{name}@{k}": (name, k) for name in ("HR", "NDCG", "MRR") for k in KS}
BATCH_HISTORIES = 512
BATCH_TOKENS = 65_536
Z95 = 1.959964  # the normal distribution's 97.5 % quantile
LENGTH_EDGES = (0, 1, 2, 3, 6, 11, 21, 51, 101, 201)
CLICK_EDGES = (0, 1, 10, 100, 1_000, 10_000, 100_000)


@runtime_checkable
class Scorer(Protocol):
    """Scores all items as the next click of a batch of histories."""

    @property
    def name(self) -> str:
        """The name in the report."""
        ...

    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items); higher is likelier."""
        ...


def without_seen(scores: NDArray[np.float32], seen: Histories, targets: Int) -> NDArray[np.float32]:
    """A copy of the scores (B, n_items) with -inf at each history's items but the target."""
    scores = scores.copy()
    rows = np.repeat(np.arange(len(seen)), seen.lengths)
    hidden = (seen.items < seen.n_items) & (seen.items != targets[rows])
    scores[rows[hidden], seen.items[hidden]] = -np.inf
    return scores


def ranks(scores: NDArray[np.float32], targets: Int, seen: Histories | None = None) -> Int:
    """Rank of each target among all items, from 1.

    Ties count against the target: it ranks behind every item of the same score, so that a scorer
    gains nothing by giving all items the same score.

    Args:
        scores: (B, n_items).
        targets: (B,) indices of items.
        seen: histories whose items are not ranked, except the target.

    Raises:
        ValueError: a score is NaN, or a target is not in the catalogue.
    """
    if np.isnan(scores.max(initial=-np.inf)):
        raise ValueError(f"{np.isnan(scores).sum()} scores of {scores.size} are NaN")
    if len(targets) and not 0 <= targets.min() <= targets.max() < scores.shape[1]:
        raise ValueError(f"targets reach {targets.max()}, the catalogue has {scores.shape[1]}")
    own = scores[np.arange(len(targets)), targets]
    ahead: Int = np.count_nonzero(scores >= own[:, None], axis=1)  # the target itself included
    if seen is None:
        return ahead
    # Subtracted, because copying the scores without them takes longer than everything else.
    row, item = _distinct_seen(seen, targets)
    hidden = row[scores[row, item] >= own[row]]
    behind: Int = ahead - np.bincount(hidden, minlength=len(targets))
    return behind


def _distinct_seen(seen: Histories, targets: Int) -> tuple[Int, Int]:
    """Row and item of the distinct known items of each history, without its target."""
    row = np.repeat(np.arange(len(seen)), seen.lengths)
    kept = (seen.items < seen.n_items) & (seen.items != targets[row])
    pairs = np.unique(row[kept] * seen.n_items + seen.items[kept])
    return pairs // seen.n_items, pairs % seen.n_items


def gains(rank: Int, metric: str, k: int) -> NDArray[np.float64]:
    """The contribution of each case to `HR`, `NDCG` or `MRR` at cutoff k, (cases,)."""
    if metric == "HR":
        gain = np.ones(len(rank))
    elif metric == "NDCG":
        gain = 1 / np.log2(rank + 1)
    elif metric == "MRR":
        gain = 1 / rank
    else:
        raise ValueError(f"unknown metric {metric!r}, known are HR, NDCG and MRR")
    return np.where(rank <= k, gain, 0.0)


@dataclass(frozen=True)
class Estimate:
    """A mean over users with its confidence interval."""

    mean: float
    standard_error: float
    low: float  # of the 95 % confidence interval
    high: float

    @classmethod
    def of(cls, values: NDArray[np.float64]) -> "Estimate":
        """Estimates the population's mean from values (cases,); NaN if there are too few."""
        if len(values) == 0:
            return cls(math.nan, math.nan, math.nan, math.nan)
        mean = float(values.mean())
        error = float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else math.nan
        return cls(mean, error, mean - Z95 * error, mean + Z95 * error)

    def interval(self, number: str = "{:.4f}") -> str:
        """The confidence interval for readers: "95 % 0.1234 to 0.1302"."""
        if math.isnan(self.high):
            return "no interval from a single case"
        return f"95 % {number.format(self.low)} to {number.format(self.high)}"


@dataclass(frozen=True)
class Metrics:
    """Estimates by name, such as "NDCG@10", and their number of cases."""

    cases: int
    estimates: dict[str, Estimate]

    @classmethod
    def of(cls, rank: Int, ks: Sequence[int] = KS) -> "Metrics":
        """Metrics of ranks (cases,)."""
        names = [(metric, k) for metric in ("HR", "NDCG", "MRR") for k in ks]
        estimates = {f"{name}@{k}": Estimate.of(gains(rank, name, k)) for name, k in names}
        return cls(len(rank), estimates)

    def __getitem__(self, name: str) -> float:
        return self.estimates[name].mean


@dataclass(frozen=True)
class Comparison:
    """The first scorer minus the second, on the same cases."""

    difference: Estimate
    p_value: float  # two-sided; the chance of such a difference if there were none

    @property
    def p_text(self) -> str:
        """The p-value for readers: "p = 0.023", "p < 0.0001"."""
        if math.isnan(self.p_value):
            return "p unknown"
        return "p < 0.0001" if self.p_value < 1e-4 else f"p = {self.p_value:.2g}"


def compare(first: Int, second: Int, metric: str = "NDCG", k: int = 10) -> Comparison:
    """Compares two vectors of ranks (cases,) case by case, by the normal approximation.

    Raises:
        ValueError: the vectors differ in length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} ranks cannot be paired with {len(second)}")
    return compare_gains(gains(first, metric, k) - gains(second, metric, k))


def compare_gains(differences: NDArray[np.float64]) -> Comparison:
    """Compares two vectors of gains per case, (cases,)."""
    difference = Estimate.of(differences)
    if difference.mean == 0:
        return Comparison(difference, 1.0)
    if not difference.standard_error > 0:  # one case, or the same difference in each
        return Comparison(difference, 0.0 if difference.standard_error == 0 else math.nan)
    z = abs(difference.mean) / difference.standard_error
    return Comparison(difference, math.erfc(z / math.sqrt(2)))


@dataclass(frozen=True)
class Bucket:
    """Metrics of the cases whose value is at least `low` and below `high`."""

    low: int
    high: int | None  # None = no limit
    metrics: Metrics


def breakdown(rank: Int, values: Int, edges: Sequence[int], ks: Sequence[int] = KS) -> list[Bucket]:
    """Metrics of cases grouped by a count, without empty groups.

    For example by `cases.histories.lengths` with LENGTH_EDGES, or by the clicks on the target
    in training with CLICK_EDGES.

    Args:
        rank: (cases,).
        values: (cases,) the count of each case.
        edges: lower edges of the buckets, ascending.
        ks: cutoffs.
    """
    place = np.searchsorted(np.asarray(edges), values, side="right") - 1
    highs = [*edges[1:], None]
    return [
        Bucket(edges[i], highs[i], Metrics.of(rank[place == i], ks))
        for i in range(len(edges))
        if np.any(place == i)
    ]


@dataclass(frozen=True)
class Evaluation:
    """One scorer on one set of cases."""

    name: str
    ranks: Int  # (cases,)
    metrics: Metrics
    coverage: dict[int, float]  # by k: share of the catalogue that is in the top k of any case


def evaluate_scorer(
    scorer: Scorer | Ranker,
    cases: Cases,
    remove_seen: bool,
    ks: Sequence[int] = KS,
    *,
    batch: int = BATCH_HISTORIES,
    max_batch_tokens: int = BATCH_TOKENS,
) -> Evaluation:
    """Ranks the target of every case among all items, and measures the coverage of the catalogue.

    Args:
        scorer: gets batches of histories of similar length. It scores all items, or lists the best.
        cases: histories and targets.
        remove_seen: whether to rank without the history's own items. This suits items that are
            consumed once (films), not items that people return to (news sections).
        ks: cutoffs; the ranks of a scorer that lists items are exact up to the largest.
        batch: largest number of histories per batch.
        max_batch_tokens: largest padded size of a batch, before any truncation.
    """
    result = np.zeros(len(cases.targets), np.int64)
    covered = {k: np.zeros(cases.histories.n_items, np.bool_) for k in ks}
    for rows in length_grouped(cases.histories.lengths, max_batch_tokens, batch):
        histories, targets = cases.histories.select(rows), cases.targets[rows]
        if isinstance(scorer, Scorer):
            scores = scorer.scores(histories)
            result[rows] = ranks(scores, targets, histories if remove_seen else None)
            no_target = np.full_like(targets, -1)
            allowed = without_seen(scores, histories, no_target) if remove_seen else scores
            for k in ks:
                covered[k][top(allowed, k)] = True
        else:
            ranking = scorer.ranking(histories, targets, remove_seen, max(ks))
            result[rows] = ranking.ranks
            for k in ks:
                covered[k][np.concatenate([items[:k] for items in ranking.shown])] = True
    share = {k: float(items.mean()) for k, items in covered.items()}
    return Evaluation(scorer.name, result, Metrics.of(result, ks), share)


def target_ranks(scorer: Scorer, cases: Cases, remove_seen: bool) -> Int:
    """The ranks of `evaluate_scorer` alone, (cases,), for validation between epochs.

    Coverage needs the best items of every case. Finding them among 54,542 items took two thirds of
    the training time, and training does not use it.
    """
    result = np.zeros(len(cases.targets), np.int64)
    for rows in length_grouped(cases.histories.lengths, BATCH_TOKENS, BATCH_HISTORIES):
        histories = cases.histories.select(rows)
        scores = scorer.scores(histories)
        result[rows] = ranks(scores, cases.targets[rows], histories if remove_seen else None)
    return result


def top(scores: NDArray[np.float32], k: int) -> Int:
    """The k best items of each row without the hidden ones, as one list in any order."""
    k = min(k, scores.shape[1])
    best = np.argpartition(scores, -k, axis=1)[:, -k:]
    return best[np.isfinite(np.take_along_axis(scores, best, axis=1))]


def log_losses(scorer: Scorer, cases: Cases, batch: int = 512) -> NDArray[np.float64]:
    """-log P(target) of each case in nats, (cases,), for scorers that return probabilities.

    Raises:
        ValueError: a row of scores is not a probability distribution.
    """
    losses = np.zeros(len(cases.targets))
    for rows in length_grouped(cases.histories.lengths, 65_536, batch):
        scores = scorer.scores(cases.histories.select(rows)).astype(np.float64)
        if scores.min() < 0 or np.abs(scores.sum(axis=1) - 1).max() > 1e-3:
            raise ValueError(f"the scores of {scorer.name} are not probabilities")
        with np.errstate(divide="ignore"):  # a target with probability 0 has infinite loss
            losses[rows] = -np.log(scores[np.arange(len(rows)), cases.targets[rows]])
    return losses
