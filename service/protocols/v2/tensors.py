"""Reads the values of input tensors: from JSON, flat or nested, or little-endian behind it."""

import math
import struct
from array import array
from collections.abc import Mapping, Sequence
from itertools import chain
from types import NoneType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from persona.contract import InvalidRequest
from service.protocols.v2.schema import InputTensor

DTYPES: Mapping[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "BYTES": np.dtype(np.object_),  # of str
}
# Of the same, as arrays of this machine.
TYPECODES = {"BOOL": "b", "INT32": "i", "INT64": "q", "FP32": "f"}
# All others are integers.
IN_JSON: Mapping[str, set[type]] = {"BOOL": {bool}, "BYTES": {str}, "FP32": {int, float, NoneType}}

Values = NDArray[Any]


def read_tensors(tensors: Sequence[InputTensor], binary: bytes) -> dict[str, Values]:
    """The values of all tensors, in their shapes; `binary` is what stands behind the JSON.

    Raises:
        InvalidRequest: a tensor is not what its shape and datatype say, or comes twice.
    """
    found: dict[str, Values] = {}
    rest = memoryview(binary)
    for tensor in tensors:
        if tensor.name in found:
            raise InvalidRequest(f"input '{tensor.name:.60}' comes twice")
        if tensor.datatype not in DTYPES:
            raise _refusal(tensor, f"datatype {tensor.datatype:.60}, not {', '.join(DTYPES)}")
        size = tensor.parameters.get("binary_data_size")
        if size is None:
            values = _from_json(tensor)
        else:
            if type(size) is not int or not 0 <= size <= len(rest):
                raise _refusal(tensor, f"binary_data_size {size}, and {len(rest)} bytes are left")
            values, rest = _from_bytes(tensor, bytes(rest[:size])), rest[size:]
        found[tensor.name] = values.reshape(tensor.shape)
    if rest:
        raise InvalidRequest(f"{len(rest)} bytes behind the last input")
    return found


def _from_json(tensor: InputTensor) -> Values:
    if tensor.data is None:
        raise _refusal(tensor, "neither data nor binary_data_size")
    flat = tensor.data
    if len(tensor.shape) == 2 and flat and isinstance(flat[0], list):
        n_rows, n_columns = tensor.shape
        if set(map(type, flat)) != {list} or set(map(len, flat)) != {n_columns}:
            raise _refusal(tensor, f"data that is not {n_rows} lists of {n_columns} values")
        flat = list(chain.from_iterable(flat))
    _check_size(tensor, len(flat), "values")
    kinds = set(map(type, flat))
    if not kinds <= IN_JSON.get(tensor.datatype, {int}):
        wrong = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise _refusal(tensor, f"values of type {wrong} in data of datatype {tensor.datatype}")
    dtype = DTYPES[tensor.datatype]
    if tensor.datatype == "BYTES":
        return np.array(flat, dtype)
    if NoneType in kinds:  # JSON has no NaN
        flat = [math.nan if value is None else value for value in flat]
    try:  # an array takes integers from a list in a third of the time that NumPy needs
        return np.frombuffer(array(TYPECODES[tensor.datatype], flat), dtype)
    except OverflowError:
        raise _refusal(tensor, f"a value that is no {tensor.datatype}") from None


def _from_bytes(tensor: InputTensor, raw: bytes) -> Values:
    dtype = DTYPES[tensor.datatype]
    if tensor.datatype == "BYTES":
        texts = _texts(tensor, raw)
        _check_size(tensor, len(texts), "values")
        return np.array(texts, dtype)
    _check_size(tensor, len(raw), "bytes", dtype.itemsize)
    if tensor.datatype == "BOOL":
        return np.frombuffer(raw, np.uint8).astype(np.bool_)
    return np.frombuffer(raw, dtype)


def _texts(tensor: InputTensor, raw: bytes) -> list[str]:
    """Each value is its length as a 32-bit integer, and UTF-8."""
    texts, at, unpack = list[bytes](), 0, struct.Struct("<I").unpack_from
    try:
        while at < len(raw):
            start = at + 4
            at = start + unpack(raw, at)[0]
            texts.append(raw[start:at])
    except struct.error:
        raise _refusal(tensor, "a text without its length at the end") from None
    if at > len(raw):
        raise _refusal(tensor, f"a last text that lacks {at - len(raw)} bytes")
    try:
        return list(map(bytes.decode, texts))
    except UnicodeDecodeError as error:
        raise _refusal(tensor, f"a text that is not UTF-8: {error.reason}") from None


def _check_size(tensor: InputTensor, size: int, unit: str, each: int = 1) -> None:
    expected = math.prod(tensor.shape) * each
    if size != expected:
        raise _refusal(tensor, f"{size} {unit}, shape {tensor.shape} needs {expected}")


def _refusal(tensor: InputTensor, reason: str) -> InvalidRequest:
    return InvalidRequest(f"input '{tensor.name:.60}' has {reason}")
