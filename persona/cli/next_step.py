"""Prints the next command, ready to paste into a shell."""

import shlex
from pathlib import Path

from rich.console import Console


def print_next(console: Console, *words: str | Path) -> None:
    """Prints `next: persona ...` on one line, with words quoted if necessary."""
    command = shlex.join(["persona", *map(str, words)])
    console.print(f"next: {command}", style="dim", markup=False, highlight=False, soft_wrap=True)
