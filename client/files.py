"""Which reader and writer a file name stands for."""

from pathlib import Path
from typing import Any

import pyarrow as pa

from client.errors import FileError
from client.parquet_files import ParquetReader, ParquetWriter
from client.rows import Columns, Reader, Writer
from client.text_files import CsvReader, CsvWriter, JsonlReader, JsonlWriter

READERS: dict[str, type[ParquetReader | CsvReader | JsonlReader]] = {
    ".parquet": ParquetReader,
    ".csv": CsvReader,
    ".jsonl": JsonlReader,
}


def check_suffix(path: Path) -> None:
    """Raises `FileError` if the name stands for no known format."""
    if path.suffix.lower() not in READERS:
        raise FileError(f"{path}: the name must end with one of {', '.join(READERS)}")


def open_reader(path: Path, columns: Columns) -> Reader:
    """Opens a table of histories.

    Raises:
        FileError: the file cannot be opened, or is not what its suffix says.
        NoHistories: it has no column of histories.
    """
    check_suffix(path)
    try:
        return READERS[path.suffix.lower()](path, columns)
    except (OSError, pa.ArrowException) as error:
        raise FileError(f"{path}: {error}") from error


def open_writer(path: Path, suffix: str, id_type: Any, width: int) -> Writer:
    """Starts a table of embeddings of `width` numbers at `path`, in the suffix's format."""
    match suffix.lower():
        case ".parquet":
            return ParquetWriter(path, id_type, width)
        case ".csv":
            return CsvWriter(path)
        case _:
            return JsonlWriter(path)
