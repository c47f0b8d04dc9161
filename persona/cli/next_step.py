"""The line that says which command to give next, as it can be pasted into a shell."""

import shlex
from pathlib import Path

from rich.console import Console


def print_next(console: Console, *words: str | Path) -> None:
    """Prints `next: persona ...` on one line, with the words quoted where they need it."""
    command = shlex.join(["persona", *map(str, words)])
    console.print(f"next: {command}", style="dim", markup=False, highlight=False, soft_wrap=True)
