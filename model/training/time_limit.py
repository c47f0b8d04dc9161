"""Ends a training by the clock."""

import time
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback


class TimeLimit(Callback):
    """Ends training in time for a last validation, if necessary within an epoch.

    Args:
        minutes: of all calls that train the run; 0: no limit.
    """

    def __init__(self, minutes: float) -> None:
        self.limit_seconds = 60 * minutes
        self.reached = False
        self._earlier = 0.0  # seconds of earlier calls
        self._started = time.monotonic()
        self._validating_since: float | None = None
        # Of the last validation with its checkpoints; a guess before the first.
        self._validation_seconds = 0.05 * self.limit_seconds

    @property
    def seconds(self) -> float:
        """Seconds since training began, over all calls."""
        return self._earlier + time.monotonic() - self._started

    @property
    def share(self) -> float:
        """The used share of the time, in [0, 1]; 0 without a limit."""
        return min(1.0, self.seconds / self.limit_seconds) if self.limit_seconds else 0.0

    @property
    def seconds_left(self) -> float:
        """Until the limit, infinity without one."""
        return max(0.0, self.limit_seconds - self.seconds) if self.limit_seconds else float("inf")

    def on_validation_start(self, *_: Any) -> None:
        """Measures how long a validation takes, until training goes on."""
        self._validating_since = time.monotonic()

    def on_train_batch_start(self, *_: Any) -> None:
        """Stores the used time."""
        if self._validating_since is not None:
            self._validation_seconds = time.monotonic() - self._validating_since
            self._validating_since = None

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        """Ends training when only the time for a validation is left."""
        late = self.seconds_left <= self._validation_seconds
        if self.limit_seconds and trainer.strategy.reduce_boolean_decision(late, all=False):
            trainer.should_stop = self.reached = True

    def state_dict(self) -> dict[str, Any]:
        """The used seconds, for a run that continues later."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continues with the seconds of earlier calls."""
        self._earlier = float(state_dict["seconds"])
