"""Makes a graph read an item table with more rows, without the package onnx.

A graph holds only the place and the shape of the item table, so two numbers in its file change.
ONNX files are protocol buffers
(https://protobuf.dev/programming-guides/encoding), and the numbers of fields are those of
https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.
"""

from collections.abc import Callable, Iterator

GRAPH, INITIALIZER = 7, 5  # of a model; of a graph
DIMENSIONS, EXTERNAL = 1, 13  # of a tensor
KEY, VALUE = 1, 2  # of an entry of external data
VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # kinds of fields


def with_rows(model: bytes, file: str, rows: int, width: int) -> bytes:
    """The model whose float32 tensor in the external `file` has the shape (rows, width).

    Raises:
        ValueError: it reads no such tensor, or is not a model.
    """
    changed = 0

    def tensor(content: bytes) -> bytes:
        nonlocal changed
        entries = [dict(_texts(value)) for number, value in _fields(content) if number == EXTERNAL]
        if {KEY: b"location", VALUE: file.encode()} not in entries:
            return content
        changed += 1
        kept = b"".join(_written(n, value) for n, value in _fields(content) if n != DIMENSIONS)
        shape = _written(DIMENSIONS, rows) + _written(DIMENSIONS, width)
        return shape + _replaced(kept, EXTERNAL, length)

    def length(content: bytes) -> bytes:
        entry = dict(_texts(content))
        if entry.get(KEY) != b"length":
            return content
        return _written(KEY, b"length") + _written(VALUE, b"%d" % (4 * rows * width))

    try:
        found = _replaced(model, GRAPH, lambda graph: _replaced(graph, INITIALIZER, tensor))
    except IndexError:
        raise ValueError("not an ONNX model") from None
    if changed != 1:
        raise ValueError(f"{changed} tensors in {file}, expected 1")
    return found


def _replaced(message: bytes, field: int, change: Callable[[bytes], bytes]) -> bytes:
    """The message with each field of that number changed."""
    parts = []
    for number, value in _fields(message):
        new = change(value) if number == field and isinstance(value, bytes) else value
        parts.append(_written(number, new))
    return b"".join(parts)


class _Fixed(bytes):
    """A field of four or eight bytes, which has no length in front."""


def _fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields: whole numbers, or bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == VARINT:
            number, at = _varint(message, at)
            yield tag >> 3, number
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in {FIXED64, FIXED32}:
            size = 8 if kind == FIXED64 else 4
        else:
            raise ValueError("not an ONNX model")
        if at + size > len(message):
            raise ValueError("not an ONNX model")
        value = message[at : at + size]
        yield tag >> 3, value if kind == BYTES else _Fixed(value)
        at += size


def _texts(message: int | bytes) -> Iterator[tuple[int, bytes]]:
    assert isinstance(message, bytes)  # noqa: S101  # an entry is a message
    return ((number, value) for number, value in _fields(message) if isinstance(value, bytes))


def _written(number: int, value: int | bytes) -> bytes:
    if isinstance(value, int):
        return _of_varint(number << 3 | VARINT) + _of_varint(value)
    if isinstance(value, _Fixed):
        return _of_varint(number << 3 | (FIXED64 if len(value) == 8 else FIXED32)) + value
    return _of_varint(number << 3 | BYTES) + _of_varint(len(value)) + value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    found = shift = 0
    while True:
        byte = message[at]
        at += 1
        found |= (byte & 127) << shift
        if byte < 128:
            return found, at
        shift += 7


def _of_varint(number: int) -> bytes:
    found = bytearray()
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    found.append(number)
    return bytes(found)
