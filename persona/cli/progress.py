"""Shows the progress of a long job, and ends it on a signal."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

LOG_EVERY_S = 30.0

Report = Callable[[int, float], None]  # rows so far, and their fraction of all rows, 0 to 1


class _Ended(BaseException):
    """SIGINT or SIGTERM came."""


@contextmanager
def resumable(console: Console) -> Iterator[None]:
    """On SIGINT or SIGTERM, says how to continue and ends by that signal."""
    told: list[int] = []

    def end(number: int, _frame: FrameType | None) -> None:
        told.append(number)
        raise _Ended

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except BaseException:  # a library may have turned ours into another error
        if not told:
            raise
        name = signal.Signals(told[0]).name
        console.print(f"persona: ended by {name}; the same command continues", markup=False)
        signal.signal(told[0], signal.SIG_DFL)
        os.kill(os.getpid(), told[0])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_on(console: Console) -> Iterator[Report]:
    """Shows a bar on a terminal; elsewhere, prints a line from time to time."""
    if not console.is_terminal:
        yield _lines(console)
        return
    columns = (
        BarColumn(),
        TextColumn(
            "{task.percentage:>3.0f}% {task.fields[rows]:,} rows, {task.fields[rate]:,.0f}/s"
        ),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task, rate = bar.add_task("", total=1.0, rows=0, rate=0.0), _rates()

        def show(rows: int, fraction: float) -> None:
            bar.update(task, completed=fraction, rows=rows, rate=rate(rows))

        yield show


def _lines(console: Console) -> Report:
    shown_at, rate = time.monotonic(), _rates()

    def show(rows: int, fraction: float) -> None:
        nonlocal shown_at
        per_second = rate(rows)
        if time.monotonic() - shown_at < LOG_EVERY_S:
            return
        shown_at = time.monotonic()
        left_s = rows / fraction * (1 - fraction) / per_second if fraction and per_second else 0
        console.print(f"{rows:,} rows, {fraction:.0%}, {per_second:,.0f}/s, {left_s:,.0f} s left")

    return show


def _rates() -> Callable[[int], float]:
    """Rows per second since the first call, not counting the rows before it."""
    first: list[tuple[float, int]] = []

    def rate(rows: int) -> float:
        now = time.monotonic()
        first[:] = first or [(now, rows)]
        since, before = first[0]
        return (rows - before) / (now - since) if now > since else 0.0

    return rate
