"""What the training loop measures and averages on its way."""

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from model.windows import WindowBatch


class Speed(Callback):
    """Clicks learned from and seconds spent on it, validation and checkpoints apart."""

    def __init__(self) -> None:
        self.clicks, self.seconds = 0, 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Stops it."""
        batch: WindowBatch = arguments[3]  # after trainer, module and outputs
        self.seconds += time.perf_counter() - self._started
        self.clicks += int(batch.target_mask.sum())

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Adds up the clicks of all processes."""
        clicks = torch.tensor(float(self.clicks), device=trainer.strategy.root_device)
        self.clicks = int(trainer.strategy.reduce(clicks, reduce_op="sum"))


def moving_mean(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The exponential moving mean of weights, over no more than a ninth of the steps so far.

    Otherwise the first weights would be half of the mean until step 350 (decay .998), which small
    sets never reach. The formula is that of `tf.train.ExponentialMovingAverage`.
    """

    def mean(averaged: Tensor, newest: Tensor, steps: Tensor | int) -> Tensor:
        kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
        return torch.lerp(newest, averaged, kept)

    return mean
