"""Tables with one click per row, sorted into histories."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from persona.tables.database import Database, literal
from persona.tables.errors import TableError
from persona.tables.ids import (
    IdKind,
    arrow_type,
    check_id_type,
    id_values,
    is_integer,
    is_text_type,
    kind_of_ids,
)
from persona.tables.records import Records
from persona.tables.rows import SHOWN_CHARACTERS, Batch, Reject, shown
from persona.tables.table import BATCH_ROWS, Table

SORTED_ROWS = 2**17


class ClickTable(Table):
    """Clicks of each user by time; clicks of equal or no time stay in the order of the files."""

    kind = "clicks"

    def __init__(self, records: Records, database: Database) -> None:
        super().__init__(records, database)
        layout, options = records.layout, records.options
        if options.columns:
            raise TableError("only a table with one user per row can pass columns through")
        self._user = layout.position(options.user or "user")
        self._item = layout.position(options.item or "item")
        time = options.time or ("time" if layout.has("time") else None)
        self._time = None if time is None else layout.position(time)
        self.timed = self._time is not None
        self._columns = {name: layout.position(name) for name, _ in options.click_columns}
        records.need(self._user, self._item, self._time, records.rating, *self._columns.values())
        self._types = records.types() if self.format == "parquet" else []
        self._check_types()
        self._load()

    @property
    def time_unit_s(self) -> float:
        """Seconds in a unit of the times; numbers are taken as seconds."""
        kind = self._types[self._time] if self._types and self._time is not None else None
        if kind is None or not (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
            return 1.0
        return 1e-9 if getattr(kind, "unit", "") == "ns" else 1e-6

    def __iter__(self) -> Iterator[Batch | Reject]:
        self.fraction_read = 0.0
        yield from self.rejects()
        user, seen, waiting = 0, 0, None
        for batch in self.sorted_clicks():
            names = ("user", "item", *(["time"] if self.keep_times else []), *self._values())
            clicks = pa.table({name: batch.column(name) for name in names})
            seen += len(clicks)
            clicks = clicks if waiting is None else pa.concat_tables([waiting, clicks])
            clicks = clicks.combine_chunks()
            starts = _starts(clicks.column("user"))
            # The clicks of the last user may continue in the next batch.
            waiting = clicks.slice(starts[-1])
            yield from self._users(clicks, starts, user)
            user += len(starts) - 1
            self.fraction_read = seen / max(self.clicks, 1)
        if waiting is not None:
            yield from self._users(waiting, [0, len(waiting)], user)

    def rejects(self) -> Iterator[Reject]:
        """The broken rows, in order."""
        for batch in self._database.batches("SELECT * FROM rejects ORDER BY row", BATCH_ROWS):
            for row in batch.to_pylist():
                file = self.files[row["file"]]
                text = "" if row["raw"] is None else shown(row["raw"])
                yield Reject(row["row"], row["line"], file, row["user"], row["reason"], text)

    def sorted_clicks(self) -> Iterator[Any]:
        """Arrow batches of `user`, `item` and, if there are times, `time`, users together.

        The columns that the options name are there as `value0` and so on: texts, and numbers.
        """
        user = self._converted("user", self.id_kind)
        item = self._converted("item", self.item_kind)
        chosen = f"{user} AS user, {item} AS item"
        if self.timed:
            chosen += f", {'exact' if self._exact_times else 'time'} AS time"
        chosen = ", ".join([chosen, *self._values()])
        order = ", ".join([user, *self._times(), "rowid"])
        sql = f"SELECT {chosen} FROM clicks ORDER BY {order}"
        yield from self._database.batches(sql, SORTED_ROWS)

    def _converted(self, column: str, kind: IdKind) -> str:
        """The SQL of ids, converted to their type."""
        if self.format == "parquet" or kind == "mixed":
            return column
        if kind == "integers":
            return f"CAST({column} AS BIGINT)"
        return f"(CAST({column} AS JSON) ->> '$')" if self.format == "jsonl" else column

    def _users(self, clicks: Any, starts: Sequence[int], first_user: int) -> Iterator[Batch]:
        """The histories between the starts, in batches of some thousand."""
        nothing = pa.table({})
        for i in range(0, len(starts) - 1, BATCH_ROWS):
            bounds = starts[i : i + BATCH_ROWS + 1]
            part = clicks.slice(bounds[0], bounds[-1] - bounds[0])
            items = id_values(part.column("item"), self.item_kind)
            at = [bound - bounds[0] for bound in bounds]
            users = part.column("user").take(pa.array(at[:-1]))
            numbers = range(first_user + i, first_user + i + len(users))
            histories = [items[begin:end] for begin, end in pairwise(at)]
            ids, times = id_values(users, self.id_kind), None
            if self.keep_times:
                seconds = (np.asarray(part.column("time")) * self.time_unit_s).tolist()
                times = [seconds[begin:end] for begin, end in pairwise(at)]
            columns = dict[str, Sequence[Sequence[object]]]()
            for name, column in zip(self._columns, self._values(), strict=True):
                values = part.column(column).to_pylist()
                columns[name] = [values[begin:end] for begin, end in pairwise(at)]
            yield Batch(numbers, None, ids, histories, nothing, times, columns)

    def _check_types(self) -> None:
        for position in (self._user, self._item) if self._types else ():
            check_id_type(self._types[position], self.columns[position], self._records.name)

    def _load(self) -> None:
        """Parses all rows into two tables of the database, `clicks` and `rejects`."""
        database, sql = self._database, self._parsed()
        clicks = ", ".join(["user", "item", *self._times(), *self._values()])
        usable = f"SELECT {clicks} FROM ({sql}) WHERE reason IS NULL"
        user = "(CAST(user AS JSON) ->> '$')" if self.format == "jsonl" else "CAST(user AS VARCHAR)"
        rejects = (
            f"SELECT row, line, file, {user} AS user, reason, raw[:{4 * SHOWN_CHARACTERS}] AS raw "
            f"FROM ({sql}), number WHERE reason IS NOT NULL"
        )
        made = False
        for block in self._records.blocks():
            number = pa.table({"file": [self.files.index(block.file)]})
            if not made:
                for table, rows in (("clicks", usable), ("rejects", rejects)):
                    made_of = f"CREATE TABLE {table} AS {rows} LIMIT 0"
                    database.count(made_of, block=block.view, number=number)
                made = True
            inserted = database.count(f"INSERT INTO clicks {usable}", block=block.view)
            if inserted < block.rows:
                database.count(f"INSERT INTO rejects {rejects}", block=block.view, number=number)
        (self.clicks,) = database.row("SELECT count(*) FROM clicks")
        (self.rejected,) = database.row("SELECT count(*) FROM rejects")
        self.rows = self.clicks + self.rejected
        self._find_types()

    def _parsed(self) -> str:
        """The SQL of what is read of each row of `block`, and why it cannot be used."""
        records = self._records
        values = {"user": self._id(self._user), "item": self._id(self._item)}
        values |= self._times() | self._values()
        chosen = ", ".join(f"{sql} AS __{name}" for name, sql in values.items())
        inner = f"SELECT *, {chosen} FROM ({records.sql()}) WHERE {records.kept()}"
        inner = f"SELECT *, CASE {' '.join(self._problems())} END AS __reason FROM ({inner})"
        names = ", ".join(f"__{name} AS {name}" for name in ("row", "line", "reason", *values))
        raw = "CASE WHEN __reason IS NOT NULL THEN __raw END AS raw"
        return f"SELECT {names}, {raw} FROM ({inner})"

    def _id(self, position: int) -> str:
        """The SQL of an id; null if it is missing."""
        value = self._records.value(position)
        if self.format == "jsonl":
            return f"nullif(nullif(CAST({value} AS VARCHAR), 'null'), '\"\"')"
        return f"nullif({value}, '')" if self._is_text(position) else value

    def _is_text(self, position: int) -> bool:
        return self.format != "parquet" or is_text_type(self._types[position])

    def _times(self) -> dict[str, str]:
        """The SQL of the sort columns: times as numbers of any unit."""
        if self._time is None:
            return {}
        if self._is_text(self._time):
            text = self._records.text(self._time)
            parsed = f"epoch(try_cast({text} AS TIMESTAMPTZ))"
            exact = f"CASE WHEN {is_integer(text)} THEN CAST({text} AS BIGINT) END"
            return {"time": f"coalesce(try_cast({text} AS DOUBLE), {parsed})", "exact": exact}
        value, kind = self._records.value(self._time), self._types[self._time]
        if pa.types.is_integer(kind):
            return {"time": f"try_cast({value} AS BIGINT)"}
        if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
            return {"time": f"epoch_{'ns' if getattr(kind, 'unit', '') == 'ns' else 'us'}({value})"}
        return {"time": f"try_cast({value} AS DOUBLE)"}

    def _values(self) -> dict[str, str]:
        """The SQL of the clicks' other columns, null where there is no value."""
        found = dict[str, str]()
        for number, (name, kind) in enumerate(self._records.options.click_columns):
            position = self._columns[name]
            if kind == "category":
                found[f"value{number}"] = f"nullif({self._records.text(position)}, '')"
            else:  # pandas writes NaN where there is no number
                found[f"value{number}"] = f"nullif({self._number(position)}, 'nan'::DOUBLE)"
        return found

    def _number(self, position: int) -> str:
        """The SQL of a number, null where the value is none."""
        text = self._is_text(position)
        value = self._records.text(position) if text else self._records.value(position)
        return f"try_cast({value} AS DOUBLE)"

    def _problems(self) -> list[str]:
        """The SQL cases that explain why a row is broken."""
        cases = ["WHEN __problem IS NOT NULL THEN __problem"]
        for value, position in (("__user", self._user), ("__item", self._item)):
            name = self.columns[position]
            cases.append(f"WHEN {value} IS NULL THEN {literal(f'no {name}')}")
            if self.format == "jsonl":
                bad = f"{value}[1] <> '\"' AND NOT regexp_full_match({value}, '-?[0-9]+')"
                text = f"{literal(f'{name} ')} || {value} || ' is neither a string nor an integer'"
                cases.append(f"WHEN {bad} THEN {text}")
        rating = self._records.rating
        if rating is not None:
            cases += self._unreadable(rating, "try_cast({} AS DOUBLE)", "not a number")
        if self._time is not None:
            cases += self._unreadable(self._time, "__time", "neither a number nor ISO 8601")
        for name, kind in self._records.options.click_columns:
            if kind == "number":
                position = self._columns[name]
                text, number = self._records.text(position), self._number(position)
                bad = f"{text} <> '' AND coalesce(isinf({number}), true)"
                message = f"{literal(name)} || ' ' || chr(39) || {text} || chr(39)"
                cases.append(f"WHEN {bad} THEN {message} || ' is not a number'")
        return cases

    def _unreadable(self, position: int, number: str, kind: str) -> list[str]:
        """The SQL cases for a missing and for an unreadable number."""
        name, text = self.columns[position], self._records.text(position)
        message = f"{literal(f'{name} ')} || chr(39) || {text} || chr(39) || ' is {kind}'"
        bad = f"coalesce(NOT isfinite(CAST({number.format(text)} AS DOUBLE)), true)"
        missing = f"coalesce({text}, '') = ''"
        return [f"WHEN {missing} THEN {literal(f'no {name}')}", f"WHEN {bad} THEN {message}"]

    def _find_types(self) -> None:
        """Finds the types of ids and times, which depend on all clicks."""
        self.id_kind: IdKind = "strings"
        self.item_kind: IdKind = "strings"
        self._exact_times = False
        if self.format == "parquet":
            self.id_type = check_id_type(self._types[self._user], self.columns[self._user], "")
        else:
            self.id_kind, self.item_kind = (self._kind(column) for column in ("user", "item"))
            self.id_type = arrow_type(self.id_kind)
        if "exact" in self._times():
            sql = "SELECT coalesce(bool_and(exact IS NOT NULL), false) FROM clicks"
            (self._exact_times,) = self._database.row(sql)

    def _kind(self, column: str) -> IdKind:
        facts = self._database.row(
            f"SELECT coalesce(bool_and({is_integer(column)}), false), "
            f"coalesce(bool_and({column}[1] = '\"'), true) FROM clicks"
        )
        all_integers, all_text = facts
        return kind_of_ids(all_integers, all_text, self.format)


def _starts(users: Any) -> list[int]:
    """The start of each user's clicks, including the last user's."""
    same = pc.equal(users.slice(1), users.slice(0, len(users) - 1))
    changes = np.flatnonzero(~same.to_numpy(zero_copy_only=False)) + 1
    return [0, *changes.tolist()]
