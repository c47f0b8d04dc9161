"""The moving mean of weights, which validation and the best checkpoint use.

For a table with sparse steps, only the touched rows are averaged at each step. The mean of a
resting row moves towards the row by a known factor. This factor is applied when the row is touched
again, and to all rows before the mean is read.
"""

import math
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor

from model.training.row_adam import RowAdamW, Touched


class MeanOfWeights(WeightAveraging):
    """Averages after every step, each new value with weight 1 - `kept_share`.

    Args:
        decay: largest share of the mean that a step keeps.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(multi_avg_fn=self._average)
        self._decay = decay
        self._table: Tensor | None = None  # table with sparse steps, if there is one
        self._mean: Tensor | None = None  # of the table
        self._log_kept = 0.0  # sum of log kept_share over the steps
        self._touched: Touched | None = None

    def on_train_batch_end(self, trainer: L.Trainer, *arguments: Any) -> None:
        """Adds the step to the mean."""
        (optimizer,) = trainer.optimizers
        if isinstance(optimizer, RowAdamW):
            self._touched = optimizer.touched
            self._table = self._touched.table if self._touched else self._table
        super().on_train_batch_end(trainer, *arguments)

    def on_validation_epoch_start(self, *arguments: Any) -> None:
        """Copies the mean into the model."""
        self._catch_up()
        super().on_validation_epoch_start(*arguments)

    def on_save_checkpoint(self, *arguments: Any) -> None:
        """Copies the mean into the checkpoint."""
        self._catch_up()
        super().on_save_checkpoint(*arguments)

    def on_train_end(self, *arguments: Any) -> None:
        """Leaves the mean in the model."""
        self._catch_up()
        super().on_train_end(*arguments)

    def _average(self, means: list[Tensor], weights: list[Tensor], steps: Tensor | int) -> None:
        kept = kept_share(self._decay, int(steps))
        for mean, weight in zip(means, weights, strict=True):
            if self._table is not None and weight.data_ptr() == self._table.data_ptr():
                self._average_rows(mean, weight, kept)
            else:
                mean.lerp_(weight, 1 - kept)

    def _average_rows(self, mean: Tensor, weight: Tensor, kept: float) -> None:
        if self._mean is None:
            self._mean = mean
            self._since = torch.zeros(len(mean), dtype=torch.float64, device=mean.device)
        if self._touched is not None:
            _, rows, before = self._touched
            now = torch.lerp(before, mean[rows], self._faded(rows))
            mean[rows] = torch.lerp(weight[rows], now, kept)
            self._since[rows] = self._log_kept + math.log(kept)
        self._log_kept += math.log(kept)

    def _faded(self, rows: Tensor | slice) -> Tensor:
        """The remaining share of the means since their last update, (rows, 1)."""
        return (self._log_kept - self._since[rows]).exp().float().unsqueeze(1)

    def _catch_up(self) -> None:
        """Brings the mean of every row up to date."""
        if self._mean is not None and self._table is not None:
            torch.lerp(self._table.detach(), self._mean, self._faded(slice(None)), out=self._mean)
            self._since.fill_(self._log_kept)


def kept_share(decay: float, steps: int) -> float:
    """The share of the mean that a step keeps: the decay, or less in the first steps.

    With decay .998, the initial weights would be half of the mean until step 350, which small data
    sets never reach. The formula is that of `tf.train.ExponentialMovingAverage`.
    """
    return min(decay, (1 + steps) / (10 + steps))
