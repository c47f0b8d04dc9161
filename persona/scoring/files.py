"""Which reader and writer the suffix of a file's name stands for."""

from pathlib import Path
from typing import Any

from persona.scoring.errors import FileError
from persona.scoring.rows import Columns, Reader, Writer
from persona.scoring.text_files import CsvReader, CsvWriter, JsonlReader, JsonlWriter

SUFFIXES = (".parquet", ".csv", ".jsonl")


def check_suffix(path: Path) -> None:
    """Raises `FileError` if the suffix stands for no known format."""
    if path.suffix.lower() not in SUFFIXES:
        raise FileError(f"{path}: the name must end with one of {', '.join(SUFFIXES)}")


def open_reader(path: Path, columns: Columns) -> Reader:
    """Opens a table of histories.

    Raises:
        FileError: the file cannot be opened, or is not what its suffix says.
        NoHistories: it has no column of histories.
    """
    if path.is_dir():
        raise FileError(f"{path} is a folder, not a file")
    try:
        return _reader(path, columns)
    except OSError as error:
        raise FileError(f"{path}: {error.strerror or error}") from error


def _reader(path: Path, columns: Columns) -> Reader:
    match path.suffix.lower():
        case ".parquet":
            from persona.scoring.parquet_files import ParquetReader  # noqa: PLC0415  # needs pyarrow

            return ParquetReader(path, columns)
        case ".csv":
            return CsvReader(path, columns)
        case _:
            return JsonlReader(path, columns)


def open_writer(path: Path, suffix: str, id_type: Any, width: int) -> Writer:
    """Starts a table of embeddings of `width` numbers at `path`, in the suffix's format."""
    match suffix.lower():
        case ".parquet":
            from persona.scoring.parquet_files import ParquetWriter  # noqa: PLC0415  # needs pyarrow

            return ParquetWriter(path, id_type, width)
        case ".csv":
            return CsvWriter(path)
        case _:
            return JsonlWriter(path)
