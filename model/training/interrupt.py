"""Ctrl-C ends a training, even where Python drops the KeyboardInterrupt, as in a destructor."""

import signal
import threading
from types import FrameType
from typing import Any

from lightning.pytorch.callbacks import Callback


class Interrupt(Callback):
    """Remembers a Ctrl-C, and raises KeyboardInterrupt again before the next batch."""

    def __init__(self) -> None:
        self._asked = False
        self._previous: Any = None

    def on_train_start(self, *_: Any) -> None:
        """Listens for Ctrl-C, which Python allows in the main thread alone."""
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._interrupt)

    def on_train_batch_start(self, *_: Any) -> None:
        """Ends a training that should have ended."""
        if self._asked:
            raise KeyboardInterrupt

    def on_train_end(self, *_: Any) -> None:
        """Puts the former handler back."""
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True
        raise KeyboardInterrupt
