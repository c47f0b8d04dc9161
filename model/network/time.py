"""Time in the encoder: the seconds between clicks, and those until the encoder is asked.

Seconds d between clicks enter in one of five ways. `gaps` adds a learned vector of the seconds
since the click before to each click. Two add a bias to the score of a query and a key that lie d
apart: `buckets` reads it from a learned table with a place for each power of two (HSTU, Zhai 2024),
`power` is a sum of a (1 + d)^-b (FuXi, Ye 2025). `gaps_power` is `gaps` with
that power law in the last block. `rotary` turns half of the features by time, as positions turn the
other half. All are continuous in d: rounding in the last bit moves no click into
another bucket.

The time of asking enters the last block alone, whose states nothing but the prediction reads. So
every position can be asked at a time of its own in training, and the newest one when it serves.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TimeKind = Literal["none", "gaps", "gaps_power", "buckets", "power", "rotary"]
TIME_KINDS: tuple[TimeKind, ...] = get_args(TimeKind)
KNOTS = 34  # of a table: the last one stands for 2^33 seconds, 272 years
EXPONENTS = (0.1, 0.5)  # that the terms of the power law start with
SHORTEST_S, LONGEST_S = 60.0, 3e8  # wavelengths of rotary time: from a minute to ten years
LONG_AGO = -(2**62)  # so much less than any number of seconds that a maximum ignores it


def ages_and_gap(times: Tensor, asked: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
    """How old clicks are when the newest one happens, and how long after that one is asked.

    Integers are subtracted before they become floats, which would round today's Unix time to
    minutes. A start token is as old as the oldest click.

    Args:
        times: (B, L) int64 seconds.
        asked: (B,) int64 seconds; before the newest click counts as at it.
        key_mask: (B, L) bool, True on real clicks.

    Returns:
        Ages (B, 1 + L), with the start token, and gaps (B,), both in float seconds of at least 0;
        an empty history has 0.
    """
    since = asked[:, None] - times  # (B, L)
    oldest = torch.where(key_mask, since, LONG_AGO).amax(1, keepdim=True)  # (B, 1)
    since = torch.cat((oldest, torch.where(key_mask, since, oldest)), dim=1)  # (B, 1 + L)
    newest = since.amin(1, keepdim=True)  # (B, 1)
    return (since - newest).float(), newest.squeeze(1).clamp_min(0).float()


@dataclass(frozen=True)
class Clock:
    """When the clicks of a batch happened, and when each position is asked, in float seconds."""

    ages: Tensor  # (B, 1 + L) before the newest click
    gaps: Tensor  # (B, 1 + L) from a click to the asking
    gap: Tensor  # (B,) of the newest click

    def since_previous(self) -> Tensor:
        """Seconds from the click before to each, (B, 1 + L); 0 of the first and the start token."""
        # Padding is as old as the first click.
        return F.pad((self.ages[:, :-1] - self.ages[:, 1:]).relu(), (1, 0))

    def elapsed(self, *, asked: bool) -> Tensor:
        """Seconds from keys to queries (B, 1 + L, 1 + L), or to the asking of the queries."""
        elapsed = (self.ages[:, None] - self.ages[:, :, None]).relu()
        return elapsed + self.gaps[:, :, None] if asked else elapsed

    @classmethod
    def at_newest(cls, times: Tensor, asked: Tensor | None, key_mask: Tensor) -> "Clock":
        """Only the newest click is asked: at `asked` (B,), or when it happens."""
        if asked is None:
            asked = torch.where(key_mask, times, LONG_AGO).amax(1)
        ages, gap = ages_and_gap(times, asked, key_mask)
        return cls(ages, torch.where(_newest(key_mask), gap[:, None], 0.0), gap)

    @classmethod
    def at_targets(cls, times: Tensor, gaps: Tensor, key_mask: Tensor) -> "Clock":
        """Every position is asked, `gaps` (B, 1 + L) seconds after its click."""
        newest = torch.where(key_mask, times, LONG_AGO).amax(1)
        gap = torch.where(_newest(key_mask), gaps, 0.0).amax(1)
        return cls(ages_and_gap(times, newest, key_mask)[0], gaps, gap)


def _newest(key_mask: Tensor) -> Tensor:
    """True at the newest click, and at padding behind it: (B, L) to (B, 1 + L)."""
    counted = F.pad(key_mask, (1, 0), value=True).int().cumsum(1)
    return counted == counted.amax(1, keepdim=True)


class TimeTable(nn.Module):
    """A learned function of seconds: a value at each power of two, and lines between them.

    All values start at 0: an encoder starts as one without time.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_embedding = nn.Parameter(torch.zeros(KNOTS, width))

    def forward(self, seconds: Tensor) -> Tensor:
        """Seconds of at least 0 of any shape (...), to (..., width)."""
        # In double: libraries round a logarithm differently, and a norm enlarges the difference.
        return self._read(torch.log(seconds.double() + 1))

    def _read(self, logarithm: Tensor) -> Tensor:
        place = logarithm * (1 / math.log(2))
        below = place.floor().clamp_max(KNOTS - 2)
        index = below.long()
        low: Tensor = F.embedding(index, self.time_embedding)
        high: Tensor = F.embedding(index + 1, self.time_embedding)
        return low + (high - low) * (place - below).float().unsqueeze(-1)


class PowerLaw(nn.Module):
    """Two terms a (1 + d)^-b, with an a and a b for each head; every a starts at 0."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.scales = nn.Parameter(torch.zeros(len(EXPONENTS), heads))
        self.exponents = nn.Parameter(torch.tensor(EXPONENTS)[:, None].repeat(1, heads))

    def forward(self, seconds: Tensor) -> Tensor:
        """Seconds of at least 0, (B, Lq, Lk), to biases (B, H, Lq, Lk)."""
        logarithm = torch.log(seconds + 1).unsqueeze(1)  # (B, 1, Lq, Lk)
        scales, exponents = self.scales[..., None, None], self.exponents.abs()[..., None, None]
        bias: Tensor = scales[0] * torch.exp(-exponents[0] * logarithm)
        return bias + scales[1] * torch.exp(-exponents[1] * logarithm)


class BucketBias(TimeTable):
    """The biases of each head from a table of seconds."""

    def forward(self, seconds: Tensor) -> Tensor:
        """Seconds of at least 0, (B, Lq, Lk), to biases (B, H, Lq, Lk)."""
        return self._read(torch.log(seconds + 1)).permute(0, 3, 1, 2)


def time_bias(kind: TimeKind, heads: int, *, last: bool) -> BucketBias | PowerLaw | None:
    """What makes biases of a block's attention, where this kind has them."""
    if kind == "buckets":
        return BucketBias(heads)
    # A served encoder computes one query of the last block: there the bias costs next to nothing.
    return PowerLaw(heads) if kind == "power" or (kind == "gaps_power" and last) else None


def time_angles(seconds: Tensor, count: int) -> Tensor:
    """Angles (B, L, count) of seconds (B, L), whose wavelengths grow from a minute to ten years.

    Whole turns are left out in whole seconds, which is exact: angles of thousands of turns are not.
    """
    exponents = torch.arange(count, device=seconds.device) / max(count - 1, 1)
    wavelengths = (SHORTEST_S * (LONGEST_S / SHORTEST_S) ** exponents).round()
    return torch.fmod(seconds.unsqueeze(-1), wavelengths) * (2 * math.pi / wavelengths)
