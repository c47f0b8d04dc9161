"""The ids of a column: integers if all of them are written like integers, otherwise strings."""

from typing import Any, Literal

import orjson
import pyarrow as pa

from persona.tables.errors import TableError

IdKind = Literal["integers", "strings", "mixed"]  # mixed: JSON texts of both


def is_integer(text: str) -> str:
    """SQL that is true if a text is null or written like a 64-bit integer; 007 is not."""
    written = f"CAST(try_cast({text} AS BIGINT) AS VARCHAR)"
    return f"({text} IS NULL OR coalesce({written} = {text}, false))"


def kind_of_ids(all_integers: bool, all_text: bool, format: str) -> IdKind:  # noqa: A002  # the option's name
    """The type of ids in a column of CSV or JSON, given what holds for all values."""
    if all_integers:
        return "integers"
    return "mixed" if format == "jsonl" and not all_text else "strings"


def arrow_type(kind: IdKind) -> Any:
    """The type in which ids are written; mixed ones become text."""
    return pa.int64() if kind == "integers" else pa.string()


def id_values(column: Any, kind: IdKind) -> list[Any]:
    """The values of an Arrow column, as Python objects."""
    if kind == "mixed":
        texts = ["null" if text is None else text for text in column.to_pylist()]
        values: list[Any] = orjson.loads(f"[{','.join(texts)}]")
        return values
    if column.null_count:
        return list(column.to_pylist())
    if is_text_type(column.type):
        # Equal ids share one object: a third of the memory and of the time, and less to pickle.
        whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        coded = whole.dictionary_encode()
        words = coded.dictionary.to_numpy(zero_copy_only=False)
        return list(words[coded.indices.to_numpy()].tolist())
    return list(column.to_numpy(zero_copy_only=False).tolist())


def check_id_type(kind: Any, column: str, source: str) -> Any:
    """The plain Arrow type of ids.

    Raises:
        TableError: the type is neither string nor integer.
    """
    if not is_id_type(kind):
        message = f"column {column!r} is {kind}, ids must be strings or integers"
        raise TableError(f"{source}: {message}")
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return kind if pa.types.is_integer(kind) or pa.types.is_large_string(kind) else pa.string()


def is_id_type(kind: Any) -> bool:
    """Whether a Parquet type can hold ids."""
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(is_text_type(value) or pa.types.is_integer(value) or pa.types.is_null(value))


def is_text_type(kind: Any) -> bool:
    """Whether a Parquet type holds text."""
    types = pa.types
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))
