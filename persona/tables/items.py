"""Reads a file of items: Parquet, JSON Lines, or CSV."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet

from persona.tables.errors import TableError

ITEM_ID = "item_id"
SEPARATOR = "|"  # between several texts in one CSV field


def read_items(path: Path) -> list[dict[str, Any]]:
    """The rows, each with an `item_id` (a string or an integer); missing values are None.

    In CSV, a field with `|` holds several texts.

    Raises:
        TableError: the file cannot be read, has no column `item_id`, or a row has no id.
    """
    try:
        table = _table(path)
    except pa.ArrowException as error:
        raise TableError(f"{path}: {str(error).partition(chr(10))[0]}") from None
    except OSError as error:
        raise TableError(f"{path}: {error.strerror or error}") from None
    if ITEM_ID not in table.column_names:
        found = ", ".join(table.column_names)
        raise TableError(f"{path}: no column '{ITEM_ID}', only {found or 'none'}")
    rows: list[dict[str, Any]] = table.to_pylist()
    for number, row in enumerate(rows, 1):
        if isinstance(row[ITEM_ID], bool) or not isinstance(row[ITEM_ID], str | int):
            raise TableError(
                f"{path}: row {number}: the {ITEM_ID} is neither a string nor an integer"
            )
    return rows


def _table(path: Path) -> Any:
    if path.suffix == ".csv":
        return _split(pyarrow.csv.read_csv(path, convert_options=_CSV))
    if path.suffix in {".jsonl", ".ndjson", ".json"}:
        return pyarrow.json.read_json(path)
    return pyarrow.parquet.read_table(path)


_CSV = pyarrow.csv.ConvertOptions(strings_can_be_null=True)


def _split(table: Any) -> Any:
    for place, name in enumerate(table.column_names):
        column = table.column(name)
        if name == ITEM_ID or not pa.types.is_string(column.type):
            continue
        if any(SEPARATOR in (text or "") for text in column.to_pylist()):
            texts = [text and text.split(SEPARATOR) for text in column.to_pylist()]
            table = table.set_column(place, name, pa.array(texts, pa.list_(pa.string())))
    return table
