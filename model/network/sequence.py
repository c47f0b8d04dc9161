"""The masks, positions and times of a batch of histories, which every block reads."""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.network.attention import Rotation, position_angles
from model.network.config import EncoderConfig
from model.network.time import Clock, TimeKind, time_angles


class MaskedSequence:
    """Masks and positions of a batch; position 0 is the start token.

    Positions count real clicks, so padding does not change them.
    """

    def __init__(self, key_mask: Tensor, config: EncoderConfig, clock: Clock | None = None) -> None:
        if clock is None and config.time != "none":
            raise ValueError("this encoder reads time, and was given no times of the clicks")
        self.clock = clock
        self.key_mask = F.pad(key_mask, (1, 0), value=True)  # (B, 1 + L)
        counted = self.key_mask.int().cumsum(1, dtype=torch.int32)
        self.positions = counted - 1  # (B, 1 + L), start token 0
        self.newest = self.positions.argmax(1)  # (B,) newest click, or the start token
        index = torch.arange(self.key_mask.shape[1], device=key_mask.device)
        causal_mask = index[None, :] <= index[:, None]  # (1 + L, 1 + L)
        self.attend_mask = causal_mask & self.key_mask[:, None, None, :]  # (B, 1, 1 + L, 1 + L)
        self.query_mask = self.key_mask[:, :, None]  # (B, 1 + L, 1)
        self.rotation: Rotation | None = None
        self.asked_rotation: Rotation | None = None
        if config.positions == "rotary":
            self._rotate(config.width // config.heads, config.time)

    def _rotate(self, head_width: int, time: TimeKind) -> None:
        if time != "rotary" or self.clock is None:
            self.rotation = self.asked_rotation = Rotation.of(self.positions, head_width)
            return
        by_position = position_angles(self.positions, head_width // 4)  # (B, 1 + L, d / 4)
        ages, gaps = self.clock.ages, self.clock.gaps
        self.rotation, self.asked_rotation = (
            Rotation.by(torch.cat((by_position, time_angles(t, head_width // 4)), dim=-1))
            for t in (-ages, gaps - ages)
        )


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Takes one position per row: (B, L, D) at (B,) to (B, D)."""
    return x.gather(1, positions[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)
