"""Click histories that are small enough to write down, and an easy set to learn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from model.clicks.histories import Histories


def of(*rows: Sequence[int], n_items: int = 4) -> Histories:
    """Histories of the given items, users 0, 1, ...; item `n_items` is the unknown one."""
    offsets = np.cumsum([0, *map(len, rows)])
    items = np.array([item for row in rows for item in row], np.int32)
    return Histories(list(range(len(rows))), list(range(n_items)), items, offsets)


def walks(users: int = 120) -> Histories:
    """Users who step from item i to i + 1 of ten: easy to learn."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, 10, users), rng.integers(2, 15, users)
    rows = [[(s + k) % 10 for k in range(n)] for s, n in zip(starts, lengths, strict=True)]
    return of(*rows, n_items=10)


def write_walks(path: Path) -> Path:
    """The walks as a SASRec file."""
    histories = walks()
    lines = [
        f"{user + 1} {item + 1}\n" for user in range(len(histories)) for item in histories[user]
    ]
    path.write_text("".join(lines))
    return path
