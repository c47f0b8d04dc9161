"""Callbacks of the training loop: speed, progress, and the moving mean of weights."""

import time
from collections.abc import Callable
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress, TimeRemainingColumn
from torch import Tensor

from model.training.windows import WindowBatch


class Speed(Callback):
    """Measures clicks and seconds of the training steps, without validation and checkpoints."""

    def __init__(self) -> None:
        self.clicks, self.seconds = 0, 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Starts the clock."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Stops the clock."""
        batch: WindowBatch = arguments[3]  # after trainer, module and outputs
        self.seconds += time.perf_counter() - self._started
        self.clicks += int(batch.target_mask.sum())

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Adds up the clicks of all processes."""
        clicks = torch.tensor(float(self.clicks), device=trainer.strategy.root_device)
        self.clicks = int(trainer.strategy.reduce(clicks, reduce_op="sum"))


class RunProgress(Callback):
    """Shows the epoch, the loss, the monitored metric and the time left for the whole run."""

    def __init__(self, monitor: str) -> None:
        self._monitor = monitor
        self._loss: Tensor | None = None  # moving mean, so that single batches do not flicker
        self._drawn = 0.0
        self._progress = Progress(
            "epoch {task.fields[epoch]}",
            BarColumn(bar_width=20),
            f"loss {{task.fields[loss]}}  {monitor} {{task.fields[metric]}}",
            TimeRemainingColumn(),
            "left",
            console=Console(stderr=True, highlight=False),
            auto_refresh=False,
            speed_estimate_period=600,  # seconds, to average over validations too
        )

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Opens the display."""
        self._progress.disable = not trainer.is_global_zero
        total = trainer.num_training_batches * (trainer.max_epochs or 1)
        self._task = self._progress.add_task("", total=total, **self._fields(trainer))
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, _: L.LightningModule, outputs: Any, *__: Any
    ) -> None:
        """Updates the display a few times a second."""
        newest = outputs["loss"]
        self._loss = newest if self._loss is None else torch.lerp(newest, self._loss, 0.95)
        if time.monotonic() - self._drawn > 0.25:
            self._draw(trainer)

    def on_validation_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Shows the new value of the monitored metric."""
        self._draw(trainer)

    def on_train_end(self, *_: Any) -> None:
        """Closes the display."""
        self._progress.stop()

    def on_exception(self, *_: Any) -> None:
        """Closes the display."""
        self._progress.stop()

    def _draw(self, trainer: L.Trainer) -> None:
        self._drawn = time.monotonic()
        self._progress.update(self._task, refresh=True, **self._fields(trainer))

    def _fields(self, trainer: L.Trainer) -> dict[str, Any]:
        metric = trainer.callback_metrics.get(self._monitor)
        return {
            "completed": trainer.global_step,
            "epoch": f"{trainer.current_epoch + 1} of {trainer.max_epochs}",
            "loss": "..." if self._loss is None else f"{self._loss.item():.4f}",
            "metric": "..." if metric is None else f"{metric.item():.4f}",
        }


def moving_mean(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """The exponential moving mean of weights, with a smaller decay in the first steps.

    With decay .998 the initial weights would be half of the mean until step 350, which small sets
    never reach. The formula is that of `tf.train.ExponentialMovingAverage`.
    """

    def mean(averaged: Tensor, newest: Tensor, steps: Tensor | int) -> Tensor:
        kept = min(decay, (1 + int(steps)) / (10 + int(steps)))
        return torch.lerp(newest, averaged, kept)

    return mean
