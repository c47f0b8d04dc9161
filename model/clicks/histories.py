"""Click histories of many users in two flat arrays, their splits, and batches with little padding.

A history is ordered from oldest to newest. Item i of the catalogue is row i of the item
embedding table; row `len(item_ids)` belongs to unknown items.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.errors import DataError
from persona.contract import TIME, ItemId

Int = NDArray[np.int64]


@dataclass(frozen=True)
class Histories:
    """The clicks of all users, concatenated.

    Raises:
        ValueError: the offsets do not cover the items exactly.
    """

    user_ids: Sequence[str | int]  # one per user
    item_ids: Sequence[ItemId]  # the catalogue, distinct
    items: NDArray[np.int32]  # (clicks,) indices into item_ids; len(item_ids) = unknown
    offsets: Int  # (users + 1,) user u owns items[offsets[u]:offsets[u + 1]]
    columns: Mapping[str, NDArray[Any]] = field(default_factory=dict)  # further columns, by name
    asked: Int | None = None  # (users,) seconds, times of asking; None: the newest click's
    # The texts of category columns. Their values are indices into these texts; -1: no value.
    texts: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.items):
            raise ValueError(f"offsets end at {self.offsets[-1]}, items at {len(self.items)}")
        if len(self.offsets) != len(self.user_ids) + 1:
            raise ValueError(f"{len(self.user_ids)} users need {len(self.user_ids) + 1} offsets")

    def __len__(self) -> int:
        return len(self.user_ids)

    def __getitem__(self, user: int) -> NDArray[np.int32]:
        return self.items[self.offsets[user] : self.offsets[user + 1]]

    @property
    def lengths(self) -> Int:
        """Clicks of each user, (users,)."""
        return np.diff(self.offsets)

    @property
    def n_items(self) -> int:
        """Size of the catalogue, without the row of unknown items."""
        return len(self.item_ids)

    @property
    def seconds(self) -> Int:
        """The time of every click, (clicks,) whole seconds.

        Raises:
            DataError: the clicks have no times.
        """
        if TIME not in self.columns:
            raise DataError("the encoder reads the time of each click, and these clicks have none")
        return _whole(self.columns[TIME])

    def select(self, users: Int) -> "Histories":
        """The given users, in the given order, over the same catalogue."""
        lengths = self.lengths[users]
        offsets = np.concatenate(([0], np.cumsum(lengths)))
        # Position of every kept click: its user's start plus its rank within the user.
        rank = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        clicks = np.repeat(self.offsets[users], lengths) + rank
        kept = self._keep(clicks, [self.user_ids[u] for u in users], offsets)
        return kept if self.asked is None else replace(kept, asked=self.asked[users])

    def oldest(self, lengths: Int) -> "Histories":
        """Every history cut to its oldest `lengths[u]` clicks; lengths (users,)."""
        rank = np.arange(len(self.items)) - np.repeat(self.offsets[:-1], self.lengths)
        kept = rank < np.repeat(lengths, self.lengths)
        return self._keep(kept, self.user_ids, np.concatenate(([0], np.cumsum(lengths))))

    def _keep(
        self, clicks: NDArray[Any], user_ids: Sequence[str | int], offsets: Int
    ) -> "Histories":
        columns = {name: values[clicks] for name, values in self.columns.items()}
        items = self.items[clicks]
        return Histories(user_ids, self.item_ids, items, offsets, columns, texts=self.texts)

    def without_newest(self, clicks: int = 1) -> "Histories":
        """Every history without its newest `clicks` clicks; shorter ones become empty."""
        return self.oldest(np.maximum(self.lengths - clicks, 0))


@dataclass(frozen=True)
class Cases:
    """Prediction tasks with known answers: the item that followed each history."""

    histories: Histories
    targets: Int  # (cases,) index of the item that came next
    times: Int | None = None  # (cases,) time of the target in seconds, if clicks have times

    def at_their_times(self) -> "Cases":
        """The same cases, asked at the times of their targets."""
        return replace(self, histories=replace(self.histories, asked=self.times))

    def sample(self, n: int, seed: int) -> "Cases":
        """`n` of the cases, in their order; all of them if there are fewer."""
        if len(self.targets) <= n:
            return self
        chosen = np.sort(np.random.default_rng(seed).choice(len(self.targets), n, replace=False))
        times = None if self.times is None else self.times[chosen]
        return Cases(self.histories.select(chosen), self.targets[chosen], times)


@dataclass(frozen=True)
class Split:
    """Clicks to train on, cases to choose the best epoch by, and cases to report."""

    train: Histories
    validation: Cases
    test: Cases


def leave_one_out(histories: Histories) -> Split:
    """Each user's newest click is a test target, the one before it a validation target.

    The validation click is part of the history at test time. Users with fewer than three
    clicks have no cases, and training uses all of their clicks.
    """
    lengths = histories.lengths
    chosen = histories.select(np.flatnonzero(lengths >= 3))
    return Split(
        histories.oldest(np.where(lengths >= 3, lengths - 2, lengths)),
        newest_click(chosen.without_newest()),
        newest_click(chosen),
    )


def held_out_users(histories: Histories, share: float, seed: int) -> Split:
    """Validation and test take `share` of the users each; training never sees them.

    The target of a case is the user's newest click. Users with one click have no case.
    """
    order = np.random.default_rng(seed).permutation(len(histories))
    n = round(share * len(histories))
    validation, test, train = np.split(order, [n, 2 * n])
    return Split(
        histories.select(np.sort(train)),
        newest_click(histories.select(np.sort(validation))),
        newest_click(histories.select(np.sort(test))),
    )


def newest_click(histories: Histories) -> Cases:
    """A case for every user with at least two clicks; the target is the newest one."""
    users = histories.select(np.flatnonzero(histories.lengths >= 2))
    newest = users.offsets[1:] - 1
    times = _whole(users.columns[TIME][newest]) if TIME in users.columns else None
    return Cases(users.without_newest(), users.items[newest].astype(np.int64), times)


def _whole(times: NDArray[Any]) -> Int:
    seconds: Int = np.floor(times).astype(np.int64)
    return seconds


def encoder_inputs(
    histories: Histories, max_length: int, step: int = 1, *, timed: bool
) -> tuple[Int, NDArray[np.bool_]] | tuple[Int, NDArray[np.bool_], Int, Int]:
    """The inputs of an encoder: item ids and key mask as from `pad`, times and time of asking.

    The times are (B, L) and (B,) int64 seconds, and only for encoders that read time.

    Raises:
        DataError: the encoder reads time, and the clicks have none.
    """
    users = range(len(histories))
    item_ids, key_mask = pad([histories[user] for user in users], max_length, step=step)
    if not timed:
        return item_ids, key_mask
    seconds, offsets = histories.seconds, histories.offsets
    rows = [seconds[offsets[user] : offsets[user + 1]] for user in users]
    asked = np.array([row[-1] if len(row) else 0 for row in rows], np.int64)
    if histories.asked is not None:
        # The added second distinguishes a known time from an unknown one.
        asked = np.maximum(histories.asked, asked + 1)
    return item_ids, key_mask, pad(rows, max_length, step=step)[0], asked


def pad(
    rows: Sequence[NDArray[Any]],
    max_length: int,
    padding_side: str = "right",
    dtype: Any = np.int64,
    *,
    step: int = 1,
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Truncates each history to its newest clicks and pads to the longest.

    At most `max_length` clicks stay, of which the oldest is at a multiple of `step`.

    Returns:
        item_ids (B, L) of the dtype, and key_mask (B, L) bool, True on real clicks. L is at least
        1.
    """
    rows = [row[-(-max(0, len(row) - max_length) // step) * step :] for row in rows]
    length = max((len(row) for row in rows), default=0) or 1
    item_ids = np.zeros((len(rows), length), dtype)
    key_mask = np.zeros((len(rows), length), np.bool_)
    for b, row in enumerate(rows):
        where = slice(0, len(row)) if padding_side == "right" else slice(length - len(row), length)
        item_ids[b, where] = row
        key_mask[b, where] = True
    return item_ids, key_mask


def length_grouped(
    lengths: Int, max_batch_tokens: int, max_batch: int, rng: np.random.Generator | None = None
) -> Iterator[Int]:
    """Batches of rows of similar length, whose padded size stays within a token budget.

    With `rng` the rows are shuffled before the stable sort by length, so that the rows of a
    batch change from epoch to epoch, and the batches come in random order.
    """
    order = np.arange(len(lengths)) if rng is None else rng.permutation(len(lengths))
    order = order[np.argsort(lengths[order], kind="stable")]
    batches, start = [], 0
    while start < len(order):
        # In ascending order the last row of a batch is its longest: grow while it still fits.
        ahead = lengths[order[start : start + max_batch]]
        fits = np.arange(1, len(ahead) + 1) * (np.maximum(ahead, 1)) <= max_batch_tokens
        size = max(int(fits.sum()), 1)
        batches.append(order[start : start + size])
        start += size
    ranks = range(len(batches)) if rng is None else rng.permutation(len(batches))
    return (batches[int(rank)] for rank in ranks)
