"""Dropout with random numbers that are cheap on a CPU."""

import torch
from torch import Tensor, nn


class Dropout(nn.Module):
    """Sets a share of the features to 0 while training and scales up the rest.

    On a CPU `nn.Dropout` draws a Bernoulli number for each feature in turn: with .2 on
    (40, 201, 64) that takes 5.1 ms, longer than a feed-forward layer. A random byte per feature
    is precise enough, and one draw yields eight of them: .6 ms.

    Args:
        share: the share to set to 0; on a CPU rounded to a multiple of 1/256.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"dropout is {share}, at least 0 and below 1 is needed")
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """Applies dropout to a tensor of any shape."""
        if not self.training or self.share == 0:
            return x
        if x.device.type != "cpu":
            return nn.functional.dropout(x, self.share)
        dropped = max(1, round(self.share * 256))
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: x.numel()].view(x.shape) >= dropped
        return x * (kept.to(x.dtype) * (256 / (256 - dropped)))
