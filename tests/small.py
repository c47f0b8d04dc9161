"""Histories small enough to write down."""

from collections.abc import Sequence

import numpy as np

from model.histories import Histories


def of(*rows: Sequence[int], n_items: int = 4) -> Histories:
    """Histories of the given items, users 0, 1, ...; item `n_items` is the unknown one."""
    offsets = np.cumsum([0, *map(len, rows)])
    items = np.array([item for row in rows for item in row], np.int32)
    return Histories(list(range(len(rows))), list(range(n_items)), items, offsets)
