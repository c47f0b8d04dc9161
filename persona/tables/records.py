"""The records of a table in blocks, and the SQL that finds a record's values in them.

Every record has these columns, and for the expression of `where` also the table's own columns:

    __row       its number, from 0, over all files
    __line      its line, from 1, within its file; null in Parquet
    __raw       the bytes of its line
    __fields    its values; null where there is a problem
    __problem   why it is broken, or null
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from persona.tables.database import expression, identifier, literal
from persona.tables.errors import TableError
from persona.tables.files import Files, named
from persona.tables.layout import Layout, header_names, look
from persona.tables.lines import MAX_LINE_BYTES, read_lines
from persona.tables.options import TableOptions

BLOCK_ROWS = 2**18  # of Parquet
# Otherwise, Arrow reads ahead and keeps everything until the file is closed.
STREAMED = {"pre_buffer": False, "buffer_size": 2**20}
PART_ROWS = 2**15
QUOTED_FIELD = '"(?:[^"]|"")*"'


@dataclass(frozen=True)
class Block:
    """Some records of one file."""

    view: Any  # Arrow table that the SQL calls `block`
    file: str
    rows: int
    fraction_read: float  # of the table


class Records:
    """The records of all files of a table."""

    block_rows = BLOCK_ROWS

    def __init__(self, files: Files, options: TableOptions, limit: int | None = None) -> None:
        self.files, self.options, self.limit = files, options, limit
        self.layout: Layout = look(files, options)
        self._needed: set[int] = set()
        least, name = options.min_rating, options.rating or "rating"
        self.rating = None if least is None else self.layout.position(name)

    @property
    def name(self) -> str:
        """The table's name, for messages."""
        return self.files.source

    def blocks(self) -> Iterator[Block]:
        """All records, in order; can be called again."""
        first = 0
        read = self._parquet_blocks if self.layout.format == "parquet" else self._text_blocks
        for number, path in enumerate(self.files.paths):
            size = max(self.files.sizes[number], 1)
            for view, fraction in read(path, size):
                left = len(view) if self.limit is None else min(self.limit - first, len(view))
                numbers = pa.array(np.arange(first, first + left))
                numbered = view.slice(0, left).append_column("__row", numbers)
                done = (number + fraction) / len(self.files.paths)
                # DuckDB's threads divide a table by its batches.
                parts = pa.Table.from_batches(numbered.to_batches(PART_ROWS), numbered.schema)
                yield Block(parts, path, left, done)
                first += left
                if first == self.limit:
                    return

    def need(self, *columns: int | None) -> None:
        """Says which columns to read."""
        self._needed |= {column for column in columns if column is not None}

    @property
    def wanted(self) -> Sequence[int]:
        """The columns that are read from JSON and Parquet: `where` may need any."""
        return range(len(self.layout.columns)) if self.options.where else sorted(self._needed)

    @property
    def filters(self) -> bool:
        """Whether some records may be ignored."""
        return self.options.where is not None or self.options.min_rating is not None

    def types(self) -> list[Any]:
        """The Arrow types of the columns in Parquet."""
        path = self.files.paths[0]
        with named(path), pq.ParquetFile(self.files.open_file(path)) as file:
            return list(file.schema_arrow.types)

    def count(self) -> int:
        """How many records there are in Parquet."""
        rows = 0
        for path in self.files.paths:
            with named(path), pq.ParquetFile(self.files.open_file(path)) as file:
                rows += int(file.metadata.num_rows)
        return rows if self.limit is None else min(rows, self.limit)

    def sql(self) -> str:
        """A query of the records of `block`."""
        if self.layout.format == "parquet":
            nothing = "NULL::BIGINT AS __line, NULL::BLOB AS __raw, NULL::VARCHAR AS __problem"
            inner = f"SELECT *, {nothing} FROM block"
        else:
            text = "rtrim(try(decode(__raw)), chr(13) || chr(10))"
            fields = (
                _csv_fields(self.layout) if self.layout.format == "csv" else self._json_fields()
            )
            inner = f"SELECT *, {text} AS __text FROM block"
            inner = f"SELECT *, {fields} AS __fields FROM ({inner})"
            inner = f"SELECT *, {self._problem()} AS __problem FROM ({inner})"
            usable = "CASE WHEN __problem IS NULL THEN __fields END AS __fields"
            inner = f"SELECT * REPLACE ({usable}) FROM ({inner})"
        named_columns = self._named_columns() if self.options.where else ""
        return f"SELECT *{named_columns} FROM ({inner})"

    def kept(self) -> str:
        """The SQL condition for records that count, including broken ones."""
        conditions = [f"({expression(self.options.where)})"] if self.options.where else []
        if self.rating is not None and self.options.min_rating is not None:
            rating, least = self.text(self.rating), float(self.options.min_rating)
            conditions.append(f"coalesce(try_cast({rating} AS DOUBLE) >= {least!r}, true)")
        return f"(__problem IS NOT NULL OR ({' AND '.join(conditions)}))" if conditions else "true"

    def value(self, position: int) -> str:
        """The SQL of a column's value: text, JSON, or Parquet's type."""
        if self.layout.format == "parquet":
            return f"__column{position}"
        if self.layout.format == "jsonl":
            return f"__fields[{self.wanted.index(position) + 1}]"
        return f"nullif(__fields[{position + 1}], '')"

    def text(self, position: int) -> str:
        """The SQL of a column's value as text."""
        value = self.value(position)
        if self.layout.format == "jsonl":
            return f"({value} ->> '$')"
        return value if self.layout.format == "csv" else f"CAST({value} AS VARCHAR)"

    def _text_blocks(self, path: str, size: int) -> Iterator[tuple[Any, float]]:
        header = self.layout.header
        for lines in read_lines(self.files, path):
            raw, numbers = lines.raw, lines.numbers
            if header and len(raw):
                self._check_header(path, raw[0].as_py())
                raw, numbers, header = raw[1:], numbers[1:], False
            view = pa.table({"__raw": raw, "__line": numbers})
            yield view, min(lines.packed_bytes / size, 1.0)

    def _parquet_blocks(self, path: str, _: int) -> Iterator[tuple[Any, float]]:
        with named(path), pq.ParquetFile(self.files.open_file(path), **STREAMED) as file:
            if tuple(file.schema_arrow.names) != self.layout.columns:
                raise TableError(f"{path}: other columns than in {self.files.paths[0]}")
            names, wanted = self.layout.columns, self.wanted
            read, rows = 0, int(file.metadata.num_rows)
            chosen = [names[i] for i in wanted]
            nothing = [pa.RecordBatch.from_pylist([], file.schema_arrow)]
            # Each thread would keep 20 MB of freed memory for itself.
            blocks = file.iter_batches(self.block_rows, columns=chosen, use_threads=False)
            for batch in blocks if rows else nothing:
                read += len(batch)
                columns = [plain(batch.column(names[i])) for i in wanted]
                view = pa.table(columns, [f"__column{i}" for i in wanted])
                yield view, read / max(rows, 1)

    def _check_header(self, path: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r\n")
        if tuple(header_names(text, self.layout.delimiter)) != self.layout.columns:
            raise TableError(f"{path}: another header than {self.files.paths[0]}")

    def _json_fields(self) -> str:
        names = (self.layout.columns[position] for position in self.wanted)
        pointers = ("/" + name.replace("~", "~0").replace("/", "~1") for name in names)
        return f"try(json_extract(__text, [{', '.join(map(literal, pointers))}]))"

    def _problem(self) -> str:
        """The SQL of the reason why a line is no record, or null."""
        long = f"the line has more than {MAX_LINE_BYTES} bytes"
        cases = [f"WHEN octet_length(__raw) > {MAX_LINE_BYTES} THEN {literal(long)}"]
        cases += ["WHEN __text IS NULL THEN 'not UTF-8'"]
        if self.layout.format == "jsonl":
            cases += ["WHEN __fields IS NULL THEN 'not JSON'"]
            cases += ["WHEN ltrim(__text)[1] <> '{' THEN 'not a JSON object'"]
        else:
            wanted = len(self.layout.columns)
            first = "header" if self.layout.header else "first row"
            message = f"len(__fields) || ' fields, the {first} has {wanted}'"
            cases += ["WHEN __fields IS NULL THEN 'a quote that is not closed or not escaped'"]
            cases += [f"WHEN len(__fields) <> {wanted} THEN {message}"]
        return f"CASE {' '.join(cases)} END"

    def _named_columns(self) -> str:
        """The columns under their own names, for `where`."""
        names = [name.casefold() for name in self.layout.columns]
        return "".join(
            f", {self._typed(i)} AS {identifier(name)}"
            for i, name in enumerate(self.layout.columns)
            if names.count(name.casefold()) == 1 and not name.startswith("__")
        )

    def _typed(self, position: int) -> str:
        if self.layout.format == "parquet":
            return self.value(position)
        text = self.text(position)
        return f"try_cast({text} AS DOUBLE)" if self.layout.is_number(position) else text


def plain(column: Any) -> Any:
    """The column without pandas' categories, and with times in UTC but without a zone."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        return column.cast(kind.value_type)
    # DuckDB has no functions for nanoseconds with a zone.
    zoned = pa.types.is_timestamp(kind) and kind.tz is not None
    return column.cast(pa.timestamp(kind.unit)) if zoned else column


def _csv_fields(layout: Layout) -> str:
    """The SQL of the fields of `__text`; null if quotes are broken."""
    if not layout.delimiter:
        return f"[{_unquoted('__text')}]"
    fields = f"string_split(__text, {literal(layout.delimiter)})"
    if len(layout.delimiter) > 1 or layout.delimiter == "\t":
        # In these lines, a quote is usually an ordinary character ("Weird Al" Yankovic).
        quoted = f"list_transform({fields}, lambda field: {_unquoted('field')})"
    else:
        mark = rf"\x{{{ord(layout.delimiter):x}}}"
        field = f'{mark}({QUOTED_FIELD}|(?:[^{mark}"][^{mark}]*)?)'
        text = f"{literal(layout.delimiter)} || __text"
        found = f"regexp_extract_all({text}, {literal(field)}, 1)"
        quoted = f"""CASE WHEN regexp_full_match({text}, {literal(f"(?:{field})+")})
            THEN list_transform({found}, lambda field: {_unquoted("field")}) END"""
    return f"CASE WHEN contains(__text, '\"') THEN {quoted} ELSE {fields} END"


def _unquoted(field: str) -> str:
    """The SQL of a field without its quotes, if it has any."""
    inner = f"""replace(substr({field}, 2, length({field}) - 2), '""', '"')"""
    return f"CASE WHEN regexp_full_match({field}, '{QUOTED_FIELD}') THEN {inner} ELSE {field} END"
