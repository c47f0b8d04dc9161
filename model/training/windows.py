"""Training windows: every click is a target once, and batches hold windows of similar length."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, distributed
from torch.nn import functional as F
from torch.utils.data import Dataset, Sampler

from model.clicks.columns import column_values
from model.clicks.histories import Histories, Int, length_grouped
from persona.columns import ClickColumn


@dataclass(frozen=True)
class WindowBatch:
    """Inputs and targets; position 0 is the start token, and its target is the first click."""

    item_ids: Tensor  # (B, L) int64
    key_mask: Tensor  # (B, L) bool
    targets: Tensor  # (B, 1 + L) int64, the next item
    target_mask: Tensor  # (B, 1 + L) bool, True where there is a target
    times: Tensor | None = None  # (B, L) int64 seconds, of encoders that read time
    gaps: Tensor | None = None  # (B, 1 + L) float32 seconds from each position to its asking
    columns: tuple[Tensor, ...] = ()  # (B, L) each, of encoders that read columns of clicks

    def to(self, device: torch.device) -> "WindowBatch":
        """The batch on a device."""
        moved = {
            name: one.to(device) for name, one in vars(self).items() if isinstance(one, Tensor)
        }
        return replace(self, **moved, columns=tuple(one.to(device) for one in self.columns))


class Windows(Dataset[WindowBatch]):
    """Histories cut into windows of at most `max_length` + 1 clicks, counted from the newest.

    In a window of n clicks the encoder reads the start token and n - 1 clicks, and predicts all
    n. Only in a history's oldest window does the start token predict the first click: in the
    other windows that click is not the user's first, and the start token alone means an empty
    history.

    Args:
        histories: the training clicks.
        max_length: the largest number of clicks that the encoder reads.
        newest_only: whether to use only the newest window of each history.
        timed: whether the encoder reads time.
        columns: that the encoder reads of clicks.

    Raises:
        DataError: the clicks have no times, or lack a column, and the encoder reads it.
    """

    def __init__(
        self,
        histories: Histories,
        max_length: int,
        *,
        newest_only: bool = False,
        timed: bool = False,
        columns: Mapping[str, ClickColumn] = MappingProxyType({}),
    ) -> None:
        self._columns = [torch.from_numpy(values) for values in column_values(histories, columns)]
        self._seconds = torch.from_numpy(histories.seconds) if timed else None
        self._items = torch.from_numpy(histories.items.astype(np.int64))
        self._n_items = histories.n_items
        self.starts, self.lengths, self.oldest = _cut(
            histories.offsets, max_length, newest_only=newest_only
        )

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, windows: Int) -> WindowBatch:
        """A batch of the given windows, right-padded to the longest."""
        lengths = self.lengths[windows]
        index = np.arange(lengths.max())
        target_mask = index < lengths[:, None]  # (B, 1 + L)
        where = np.where(target_mask, self.starts[windows, None] + index, 0)
        targets = self._items[torch.from_numpy(where)]
        key_mask = index[1:] < lengths[:, None]
        target_mask[:, 0] &= self.oldest[windows]
        known = targets != self._n_items  # the encoder never learns to predict "unknown"
        times, gaps = self._times(where)
        clicks = torch.from_numpy(where[:, :-1])
        return WindowBatch(
            targets[:, :-1].contiguous(),
            torch.from_numpy(key_mask),
            targets,
            torch.from_numpy(target_mask) & known,
            times,
            gaps,
            tuple(values[clicks] for values in self._columns),
        )

    def _times(self, where: Int) -> tuple[Tensor, Tensor] | tuple[None, None]:
        """Times of the clicks, and seconds from each position to its target, at least 1."""
        if self._seconds is None:
            return None, None
        targets = self._seconds[torch.from_numpy(where)]  # (B, 1 + L)
        times = targets[:, :-1]  # (B, L)
        gaps = (targets[:, 1:] - times).clamp_min(1)
        # A start token is as old as the first click.
        return times.contiguous(), F.pad(gaps, (1, 0)).float()


def _cut(offsets: Int, max_length: int, *, newest_only: bool) -> tuple[Int, Int, NDArray[np.bool_]]:
    """Start, length and "is the oldest" of every window of every non-empty history.

    Each window except the oldest starts with the click before its first target, so that every
    click is a target once.
    """
    lengths = np.diff(offsets)
    n_windows = np.maximum(-(-(lengths - 1) // max_length), (lengths > 0).astype(np.int64))
    if newest_only:
        n_windows = np.minimum(n_windows, 1)
    user = np.repeat(np.arange(len(lengths)), n_windows)
    # Counted from the newest: 0, 1, ... within each user.
    first = np.concatenate(([0], np.cumsum(n_windows)[:-1]))
    back = np.arange(len(user)) - first[user]
    ends = offsets[user + 1] - back * max_length
    starts = np.maximum(ends - max_length - 1, offsets[user])
    return starts, ends - starts, starts == offsets[user]


class LengthGroupedBatches(Sampler[Int]):
    """Batches of windows of similar length, shuffled by seed and epoch.

    The number of batches is the same in every epoch: only windows of equal length change places.
    Processes that train together (`torch.distributed`) share the batches. Some batches are used
    twice if the processes do not divide their number, because all processes must take the same
    number of steps.
    """

    def __init__(self, windows: Windows, max_batch_tokens: int, max_batch: int, seed: int) -> None:
        self._lengths = windows.lengths
        self._budget = (max_batch_tokens, max_batch)
        self._seed = seed
        self._epoch = 0
        self._n_batches = sum(1 for _ in length_grouped(self._lengths, *self._budget))

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch to shuffle for; Lightning calls this before each epoch."""
        self._epoch = epoch

    def __len__(self) -> int:
        return math.ceil(self._n_batches / _rank_of()[1])

    def __iter__(self) -> Iterator[Int]:
        # A generator: Lightning calls iter() before it calls set_epoch on a resumed run.
        rng = np.random.default_rng((self._seed, self._epoch))
        batches = length_grouped(self._lengths, *self._budget, rng)
        rank, processes = _rank_of()
        if processes > 1:
            every_batch = list(batches)
            every_batch += every_batch[: -len(every_batch) % processes]
            batches = iter(every_batch[rank::processes])
        yield from batches


def _rank_of() -> tuple[int, int]:
    """This process's rank among those that train together, and their number."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 0, 1
    return distributed.get_rank(), distributed.get_world_size()
