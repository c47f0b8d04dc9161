"""Opens a table, whatever its format."""

from contextlib import ExitStack
from pathlib import Path

from persona.tables.clicks import ClickTable
from persona.tables.database import Database
from persona.tables.errors import NoSuchColumn
from persona.tables.files import find_files
from persona.tables.histories import HistoryTable
from persona.tables.options import TableOptions
from persona.tables.proposal import as_words, propose
from persona.tables.records import Records
from persona.tables.table import Table

MEMORY = "1GB"


def open_table(
    source: str | Path,
    options: TableOptions = TableOptions(),  # noqa: B008  # the default is frozen
    *,
    limit: int | None = None,
    memory: str = MEMORY,
    scratch: Path | None = None,
) -> Table:
    """Opens a table of histories, or of clicks, which it sorts into histories.

    Args:
        source: a file, folder, glob or URL; text may be compressed with gzip or zstd.
        options: the columns, and the rows that count.
        limit: maximum number of rows to read.
        memory: memory limit of the database; the rest goes into scratch files.
        scratch: folder for scratch files; by default the system's.

    Raises:
        NoSuchColumn: a column is missing; the message suggests others.
        TableError: the table cannot be read.
    """
    files = find_files(source)
    with ExitStack() as stack:
        database = stack.enter_context(Database(files.source, memory, scratch))
        try:
            records = Records(files, options, limit)
            named = options.item is None and records.layout.has("history")
            histories = options.history is not None or named
            table: Table = (HistoryTable if histories else ClickTable)(records, database)
        except NoSuchColumn as error:
            found = propose(source, TableOptions(where=options.where))
            message = f"{source}: {error}; perhaps: {as_words(found.options)}"
            raise NoSuchColumn(message) from error
        stack.pop_all()
        return table


def checksum(source: str | Path) -> str:
    """SHA-256 of a file; for several files, SHA-256 of their concatenated checksums.

    Raises:
        TableError: a file cannot be read.
    """
    return find_files(source).checksum()
