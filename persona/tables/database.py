"""DuckDB, used to sort, filter and split Arrow batches; it opens no files itself."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import duckdb

from persona.tables.errors import TableError


class Database:
    """An in-memory database that spills into a scratch folder above a limit."""

    def __init__(self, source: str, memory: str, scratch: Path | None) -> None:
        self._source, self._memory = source, memory
        self._scratch = tempfile.TemporaryDirectory(prefix="persona-", dir=scratch)

    @cached_property
    def _connection(self) -> duckdb.DuckDBPyConnection:
        """Opened when it is needed: it takes 25 MB, and lists in Parquet are read without it."""
        connection = duckdb.connect(
            config={
                "memory_limit": self._memory,
                "temp_directory": self._scratch.name,
                "python_enable_replacements": False,
            }
        )
        connection.execute("SET TimeZone = 'UTC'")
        # The bar would be drawn on stdout, between the output of a verb.
        connection.execute("SET enable_progress_bar = false")
        # An expression of `--where` must see only the row, not files, the network or settings.
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        return connection

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the database and removes its scratch files."""
        if "_connection" in vars(self):
            self._connection.close()
        self._scratch.cleanup()

    def count(self, sql: str, **views: Any) -> int:
        """Runs a statement and returns its number of rows; `views` are Arrow tables by name."""
        with self._named(), self._views(views):
            return int((self._connection.execute(sql).fetchone() or (0,))[0])

    def table(self, sql: str, **views: Any) -> Any:
        """The rows of a query as an Arrow table; `views` are Arrow tables by name."""
        with self._named(), self._views(views):
            return self._connection.sql(sql).to_arrow_table()

    def row(self, sql: str) -> tuple[Any, ...]:
        """The only row of a query."""
        with self._named():
            found = self._connection.execute(sql).fetchall()
        return tuple(found[0])

    def batches(self, sql: str, rows: int) -> Iterator[Any]:
        """The rows of a query as Arrow batches; other queries can run meanwhile."""
        with self._named(), self._connection.cursor() as cursor:
            yield from cursor.sql(sql).to_arrow_reader(rows)

    @contextmanager
    def _views(self, views: dict[str, Any]) -> Iterator[None]:
        for name, view in views.items():
            self._connection.register(name, view)
        yield
        for name in views:
            self._connection.unregister(name)

    @contextmanager
    def _named(self) -> Iterator[None]:
        try:
            yield
        except duckdb.OutOfMemoryException as error:
            message = f"{self._source}: {_first_line(error)}; is {self._scratch.name} full?"
            raise TableError(message) from error
        except duckdb.Error as error:
            raise TableError(f"{self._source}: {_first_line(error)}") from error


def expression(sql: str) -> str:
    """The text of one SQL expression, without comments.

    Raises:
        TableError: the text is anything else.
    """
    try:
        return str(duckdb.SQLExpression(sql))
    except duckdb.Error as error:
        raise TableError(f"where {sql!r}: {_first_line(error)}") from error


def identifier(name: str) -> str:
    """The name of a column, quoted."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, quoted."""
    return "'" + text.replace("'", "''") + "'"


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0]
