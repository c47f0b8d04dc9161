"""The global time split: train on clicks before a time, test on those after it.

Unlike in leave-one-out, no training click is newer than a test target (Ji, Sun et al. 2023,
"A Critical Study on Data Leakage in Recommender System Offline Evaluation").
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from model.clicks.histories import Cases, Histories, Int, Split, newest_click
from model.errors import DataError

Targets = Literal["last", "all"]


@dataclass(frozen=True)
class Borders:
    """Validation begins at the first time, the test at the second."""

    validation: Any
    test: Any


def borders(histories: Histories, share: float) -> Borders:
    """The times after which `share` and twice `share` of the clicks came.

    Raises:
        DataError: the clicks have no times.
    """
    times = histories.columns.get("time")
    if times is None:
        raise DataError("split time needs the times of the clicks: name their column with --time")
    ordered = np.sort(times)
    places = [min(round((1 - n * share) * len(ordered)), len(ordered) - 1) for n in (2, 1)]
    return Borders(*ordered[places])


def by_time(histories: Histories, share: float, targets: Targets = "last") -> Split:
    """Trains on the clicks before validation; a case's history is every click before its target.

    Users and items that only appear later have cases too; evaluation reports them separately.

    Args:
        histories: with a column `time`, in order.
        share: of the clicks, the newest for the test and those before it for validation.
        targets: of a user's test clicks, the last or all. Validation has the last of its clicks.

    Raises:
        DataError: the clicks have no times.
    """
    found = borders(histories, share)
    n_train = _clicks_before(histories, found.validation)
    n_known = _clicks_before(histories, found.test)
    train = histories.oldest(n_train)
    known = histories.oldest(n_known)
    return Split(
        train.select(np.flatnonzero(n_train > 0)),
        newest_click(known.select(np.flatnonzero(n_known > n_train))),
        _test_cases(histories, n_known, targets),
    )


def _clicks_before(histories: Histories, time: Any) -> Int:
    """The number of each user's clicks before a time, (users,)."""
    user = np.repeat(np.arange(len(histories)), histories.lengths)
    before: NDArray[np.bool_] = histories.columns["time"] < time
    return np.bincount(user[before], minlength=len(histories))


def _test_cases(histories: Histories, n_known: Int, targets: Targets) -> Cases:
    later = np.flatnonzero(histories.lengths > n_known)
    if targets == "last":
        return newest_click(histories.select(later))
    first = np.maximum(n_known[later], 1)  # a first click has no history
    counts = np.maximum(histories.lengths[later] - first, 0)
    user = np.repeat(later, counts)
    place = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    place += np.repeat(first, counts)  # index of each target in its user's history
    items = histories.items[histories.offsets[user] + place].astype(np.int64)
    return Cases(histories.select(user).oldest(place), items)
