"""The speed of a training, and the display of its progress."""

import math
import time
from datetime import timedelta
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, Progress
from torch import Tensor

from model.training.time_limit import TimeLimit
from model.training.windows import WindowBatch

LINE_SECONDS = 60  # between lines, if the output is not a terminal
FIRST_LINE_SECONDS = 20


class Speed(Callback):
    """Measures the training steps and the validations, without checkpoints."""

    def __init__(self) -> None:
        self.clicks, self.steps, self.seconds = 0, 0, 0.0
        self.validations, self.validation_seconds = 0, 0.0

    def on_train_batch_start(self, *_: Any) -> None:
        """Starts the clock of a step."""
        self._started = time.perf_counter()

    def on_train_batch_end(self, *arguments: Any) -> None:
        """Stops the clock of a step."""
        batch: WindowBatch = arguments[3]  # after trainer, module and outputs
        self.seconds += time.perf_counter() - self._started
        self.clicks += int(batch.target_mask.sum())
        self.steps += 1

    def on_validation_start(self, *_: Any) -> None:
        """Starts the clock of a validation."""
        self._validation_started = time.perf_counter()

    def on_validation_end(self, *_: Any) -> None:
        """Stops the clock of a validation."""
        self.validation_seconds += time.perf_counter() - self._validation_started
        self.validations += 1

    def on_train_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Adds up the clicks of all processes."""
        clicks = torch.tensor(float(self.clicks), device=trainer.strategy.root_device)
        self.clicks = int(trainer.strategy.reduce(clicks, reduce_op="sum"))

    def seconds_for(self, steps: float, validations: float) -> float:
        """The seconds that more steps and validations take, infinity before the first step."""
        if not self.steps:
            return math.inf
        validation = self.validation_seconds / max(1, self.validations)
        return steps * self.seconds / self.steps + validations * validation


class RunProgress(Callback):
    """Shows the epoch, the loss, the monitored metric and an upper limit of the time left.

    On a terminal it is a bar; elsewhere, a line in the first minute and then one per minute.
    """

    def __init__(self, monitor: str, validate_every: int, speed: Speed, limit: TimeLimit) -> None:
        self._monitor, self._validate_every = monitor, validate_every
        self._speed, self._limit = speed, limit
        self._loss: Tensor | None = None  # moving mean, so that single batches do not flicker
        self._drawn = 0.0
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            "epoch {task.fields[epoch]}",
            BarColumn(bar_width=20),
            f"loss {{task.fields[loss]}}  {monitor} {{task.fields[metric]}} {{task.fields[left]}}",
            console=self._console,
            auto_refresh=False,
        )

    def on_train_start(self, trainer: L.Trainer, *_: Any) -> None:
        """Opens the display."""
        self._lines = not self._console.is_terminal and trainer.is_global_zero
        self._next_line = time.monotonic() + FIRST_LINE_SECONDS
        self._progress.disable = self._lines or not trainer.is_global_zero
        self._steps = trainer.num_training_batches * (trainer.max_epochs or 1)
        self._task = self._progress.add_task("", total=self._steps, **self._fields(trainer))
        self._progress.start()

    def on_train_batch_end(
        self, trainer: L.Trainer, _: L.LightningModule, outputs: Any, *__: Any
    ) -> None:
        """Updates the display a few times a second."""
        newest = outputs["loss"]
        self._loss = newest if self._loss is None else torch.lerp(newest, self._loss, 0.95)
        now = time.monotonic()
        if self._lines and now > self._next_line:
            fields = self._fields(trainer)
            text = "epoch {epoch}, loss {loss}, " + self._monitor + " {metric}, {left}"
            self._console.print(text.format(**fields))
            self._next_line = now + LINE_SECONDS
        elif now - self._drawn > 0.25:
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
            "left": self._left(trainer),
        }

    def _left(self, trainer: L.Trainer) -> str:
        steps = self._steps - trainer.global_step
        per_validation = max(1, trainer.num_training_batches) * self._validate_every
        seconds = self._speed.seconds_for(steps, steps // per_validation)
        seconds = min(seconds, self._limit.seconds_left)
        return "..." if math.isinf(seconds) else f"{timedelta(seconds=round(seconds))} left"
