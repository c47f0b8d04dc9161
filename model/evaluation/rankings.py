"""Ranks from lists of recommended items, because a service does not return its whole ranking."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from model.clicks.columns import given_values
from model.clicks.histories import Histories, Int
from model.network.config import EncoderConfig

Floats = NDArray[np.float32]
History = Sequence[str | int] | Mapping[str, object]  # item ids, or also what was known of clicks
Answer = tuple[Sequence[str | int], Floats]  # the best items of a history, and their scores
Recommend = Callable[[list[History], int, bool], Sequence[Answer]]
LONGEST_LIST = 1_000  # maximum number of items that a service recommends


@dataclass(frozen=True)
class Ranking:
    """Ranks of the targets of some histories, and the best items of each."""

    ranks: Int  # (B,) from 1
    shown: Sequence[Int]  # per history, in any order; at most k


class Ranker(Protocol):
    """Ranks the targets of a batch of histories."""

    @property
    def name(self) -> str:
        """The name in the report."""
        ...

    def ranking(self, histories: Histories, targets: Int, remove_seen: bool, k: int) -> Ranking:
        """Exact ranks up to k; a target beyond it may have any larger rank."""
        ...


class ListRanker:
    """Ranks by the recommendations of a service or an engine.

    Args:
        name: in the report.
        recommend: gets histories, a number k, and whether to leave out the items of the history;
            returns the k best items of each, with their scores.
        config: of the encoder that is asked, which says what it reads of clicks.
    """

    def __init__(
        self,
        name: str,
        recommend: Recommend,
        config: EncoderConfig = EncoderConfig(),  # noqa: B008  # it is frozen
    ) -> None:
        self.name = name
        self._recommend = recommend
        self._config = config

    def ranking(self, histories: Histories, targets: Int, remove_seen: bool, k: int) -> Ranking:
        """Exact ranks up to k, and k + 1 beyond."""
        rows = [histories[user].tolist() for user in range(len(histories))]
        asked = as_asked(histories, self._config)
        found: dict[int, tuple[int, Int]] = {}
        # A target that is also in the history is ranked too, so its list must not leave it out.
        repeats = {u for u, row in enumerate(rows) if targets[u] in row} if remove_seen else set()
        service_hides = [u for u in range(len(rows)) if remove_seen and u not in repeats]
        we_hide = [u for u in range(len(rows)) if not remove_seen or u in repeats]
        for users, hides in ((service_hides, True), (we_hide, False)):
            seen = {u: set(rows[u]) - {int(targets[u])} if u in repeats else set() for u in users}
            longest = max((len(items) for items in seen.values()), default=0)
            lists = self._lists(histories, [asked[u] for u in users], k + longest, hides)
            for user, (items, scores) in zip(users, lists, strict=True):
                kept = ~np.isin(items, list(seen[user]))
                found[user] = _rank(items[kept], scores[kept], targets[user], k), items[kept][:k]
        ranks, shown = zip(*(found[user] for user in range(len(rows))), strict=True)
        return Ranking(np.array(ranks, np.int64), shown)

    def _lists(
        self, histories: Histories, asked: list[History], k: int, hides: bool
    ) -> list[tuple[Int, Floats]]:
        """The best items of each history as rows of the catalogue, and their scores."""
        if not asked:
            return []
        ids = histories.item_ids
        row_of = {item: row for row, item in enumerate(ids)}
        answers = self._recommend(asked, min(k, LONGEST_LIST, len(ids)), hides)
        return [
            (np.array([row_of[item] for item in items], np.int64), np.asarray(scores, np.float32))
            for items, scores in answers
        ]


def as_asked(histories: Histories, config: EncoderConfig) -> list[History]:
    """Histories as a service is asked about them, with what the encoder reads, of known items."""
    found: list[History] = []
    seconds = None if config.time == "none" else histories.seconds
    for user, (start, end) in enumerate(pairwise(histories.offsets)):
        clicks = start + np.flatnonzero(histories.items[start:end] < histories.n_items)
        items = [histories.item_ids[row] for row in histories.items[clicks]]
        fields: dict[str, object] = {}
        if seconds is not None:
            fields["times"] = seconds[clicks].tolist()
            if histories.asked is not None:
                fields["now"] = int(histories.asked[user])
        if config.columns:
            fields["columns"] = {
                name: given_values(histories, name, clicks) for name in config.columns
            }
        found.append({"items": items, **fields} if fields else items)
    return found


def _rank(items: Int, scores: Floats, target: int, k: int) -> int:
    """The rank from 1, with ties against the target; k + 1 if it is not among the first k."""
    place = np.flatnonzero(items == target)
    return min(int(np.count_nonzero(scores >= scores[place[0]])), k + 1) if len(place) else k + 1
