"""Pads the histories of a batch to one length, and builds the key mask.

Both work on bytes, in Python: right after a run of a graph, which leaves the processor's caches
without NumPy's code, each operation of NumPy costs some microseconds more.
"""

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

TYPECODES = {"INT64": "q", "FP32": "f"}  # of a column's values, by the datatype of its input
DTYPES: dict[str, type[np.int64 | np.float32]] = {"q": np.int64, "f": np.float32}


def pad(rows: Sequence["array[Any]"]) -> NDArray[Any]:
    """Rows of unlike length, padded with 0 on the right: (B, L), L at least 1."""
    longest = max(1, *map(len, rows))
    size = rows[0].itemsize * longest
    padded = b"".join([row.tobytes().ljust(size, b"\0") for row in rows])
    values: NDArray[Any] = np.frombuffer(padded, DTYPES[rows[0].typecode])
    return values.reshape(len(rows), longest)


def key_mask(lengths: Sequence[int]) -> NDArray[np.bool_]:
    """True on the real positions of rows padded by `pad`: (B, L), L at least 1."""
    longest = max(1, *lengths)
    mask = b"".join([(b"\1" * length).ljust(longest, b"\0") for length in lengths])
    return np.frombuffer(mask, np.bool_).reshape(len(lengths), longest)
