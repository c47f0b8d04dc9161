"""The lines of text files, in blocks, as Arrow arrays of bytes.

A row is always one line, so an unclosed quote breaks only its own row.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from persona.tables.errors import TableError
from persona.tables.files import Files, named

BLOCK_BYTES = 8 * 2**20
MAX_LINE_BYTES = 16 * 2**20
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
UTF16 = (b"\xff\xfe", b"\xfe\xff")
NEWLINE, SPACE = 10, 32


@dataclass(frozen=True)
class Lines:
    """Lines that are not blank, and their numbers, from 1."""

    raw: Any  # Arrow array of bytes, with line ends
    numbers: NDArray[np.int64]
    packed_bytes: int  # bytes of the file that have been read


def read_lines(files: Files, path: str, block_bytes: int = BLOCK_BYTES) -> Iterator[Lines]:
    """The lines of a file, without blank ones.

    Raises:
        TableError: the file cannot be unpacked, or is UTF-16.
    """
    with files.open_text(path) as (text, packed), named(path):
        first = 1
        for block in _blocks(text, block_bytes):
            if first == 1 and block.startswith(UTF16):
                raise TableError(f"{path}: the text is UTF-16; save it as UTF-8")
            data = block.removeprefix(BYTE_ORDER_MARK) if first == 1 else block
            offsets = _line_offsets(data)
            yield _filled(data, offsets, first, packed.tell())
            first += len(offsets) - 1


def _blocks(text: Any, block_bytes: int) -> Iterator[bytes]:
    """Whole lines. Of lines that are too long, only the beginning, to limit memory."""
    rest = b""
    while chunk := text.read(block_bytes):
        data = rest + chunk
        end = data.rfind(b"\n") + 1
        if end:
            yield data[:end]
        rest = data[end : end + MAX_LINE_BYTES + 1]
    if rest:
        yield rest


def _line_offsets(data: bytes) -> NDArray[np.int32]:
    """The start of each line, and the end of the last one."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == NEWLINE) + 1
    unfinished = [] if data.endswith(b"\n") else [len(data)]
    return np.concatenate(([0], ends, unfinished)).astype(np.int32)


def _filled(data: bytes, offsets: NDArray[np.int32], first: int, packed_bytes: int) -> Lines:
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
    raw = pa.Array.from_buffers(pa.binary(), len(offsets) - 1, buffers)
    numbers = np.arange(first, first + len(raw), dtype=np.int64)
    # Blank lines begin with white space, and few other lines do.
    suspects = np.flatnonzero(np.frombuffer(data, np.uint8)[offsets[:-1]] <= SPACE)
    blank = [i for i in suspects.tolist() if data[offsets[i] : offsets[i + 1]].isspace()]
    if blank:
        kept = np.ones(len(raw), np.bool_)
        kept[blank] = False
        raw, numbers = raw.filter(pa.array(kept)), numbers[kept]
    return Lines(raw, numbers, packed_bytes)
