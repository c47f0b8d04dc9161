"""Guesses which columns hold users, items, times and events, from their names and values."""

import re
import shlex
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from datetime import date
from pathlib import Path
from typing import Any

from persona.tables.database import identifier, literal
from persona.tables.files import find_files
from persona.tables.layout import NUMBER, Layout, look
from persona.tables.options import TableOptions

# Common column names in public sets and logs, likely ones first. They are compared without case
# and punctuation, so that `user_id` equals `userId`.
NAMES = {
    "user": "user userid visitorid visitor reviewerid customerid clientid memberid accountid "
    "profileid uid uuid cookie deviceid sessionid session id",
    "item": "item itemid parentasin asin productid articleid clickarticleid movieid trackid "
    "artistid songid videoid bookid isbn businessid newsid pageid contentid venueid poiid sku "
    "iid aid product article movie track artist video book page url",
    "time": "time timestamp ts unixreviewtime unixtime eventtime clicktimestamp datetime createdat "
    "starttime at timeframe date eventdate",
    "history": "history histories sequence itemsequence itemseq itemidlist itemids items clicks",
    "event": "event eventtype action actiontype behavior behaviortype type",
    "rating": "rating overall stars score",
}
MISSING = {"", "na", "nan", "null", "none", "\\n"}
# Unix times from 1995 to 2050, in seconds, milliseconds, microseconds and nanoseconds.
UNIX_TIMES = [(788_918_400 * 1000**unit, 2_524_608_000 * 1000**unit) for unit in range(4)]
ISO = re.compile(r"\d{4}-\d\d-\d\d([T ].*)?")
ITEMS = re.compile(r"\s*\[.*\]\s*|[^\s,|;]+(?:[,|;][^\s,|;]+)+|-?\d+(?: -?\d+)+")
MAX_EVENTS = 20  # columns with more distinct values are not event types


@dataclass(frozen=True)
class Proposal:
    """Options that can probably read a table."""

    options: TableOptions
    columns: tuple[str, ...]
    events: tuple[str, ...] = ()  # event types in the first rows, frequent ones first
    event: str | None = None  # the column of event types
    rating: str | None = None  # a column of ratings


def propose(source: str | Path, options: TableOptions) -> Proposal:
    """Completes the options with guesses; given options stay.

    Raises:
        TableError: the table cannot be read.
    """
    layout = look(find_files(source), options)
    found = _propose(layout, options)
    if layout.format != "csv" or layout.header:
        return found
    # If columns have no names, numbers make a simpler command.
    numbers: dict[str, Any] = {
        role: str(layout.position(column) + 1)
        for role in ("history", "user", "item", "time")
        if (column := getattr(found.options, role)) is not None
    }
    return replace(found, options=replace(found.options, **numbers, header=False))


def _propose(layout: Layout, options: TableOptions) -> Proposal:
    guess = _Guess(layout)
    history = options.history or (None if options.item else guess.history())
    if history is not None:
        chosen = {"history": history, "user": options.user or guess.named("user")}
        return Proposal(_completed(options, chosen), layout.columns)
    # The time first, because its values are the easiest to recognise.
    time = options.time or guess.named("time") or guess.time()
    user = options.user or guess.named("user") or guess.filled({time})
    item = options.item or guess.named("item") or guess.filled({time, user})
    event, where = guess.named("event"), options.where
    events = guess.kinds(event) if event else ()
    if event and where is None and len(events) > 1:
        where = f"{_plain(event)} = {literal(events[0])}"
    chosen = {"user": user, "item": item, "time": time, "where": where}
    rating = guess.named("rating")
    return Proposal(_completed(options, chosen), layout.columns, events, event, rating)


def _completed(options: TableOptions, chosen: dict[str, str | None]) -> TableOptions:
    """The options, with only those guesses that differ from the defaults."""
    by_default = {("history", "history"), ("user", "user"), ("item", "item"), ("time", "time")}
    needed: dict[str, Any] = {
        name: column for name, column in chosen.items() if (name, column) not in by_default
    }
    if "history" in chosen and chosen["user"] == "id":
        del needed["user"]
    return replace(options, **needed)


class _Guess:
    """Finds columns by their names and by the values in the first rows."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._squashed = [re.sub(r"[^a-z0-9]", "", name.lower()) for name in layout.columns]

    def named(self, role: str) -> str | None:
        """The column with the likeliest name, if it has values."""
        names = [name for name in NAMES[role].split() if name in self._squashed]
        found = (self._layout.columns[self._squashed.index(name)] for name in names)
        return next((column for column in found if self._is_filled(column)), None)

    def history(self) -> str | None:
        """The column of lists."""
        named = [self.named("history"), *self._layout.columns]
        if self.named("item") and self.named("user"):
            named = named[:1]
        return next((name for name in named if name and self._most(name, _is_list)), None)

    def time(self) -> str | None:
        """The first column of times."""
        columns = self._layout.columns
        return next((name for name in columns if self._most(name, _is_time)), None)

    def filled(self, taken: set[str | None]) -> str | None:
        """The first other column with values."""
        columns = (name for name in self._layout.columns if name not in taken)
        return next((name for name in columns if self._is_filled(name)), None)

    def kinds(self, column: str) -> tuple[str, ...]:
        """The distinct values of a column, if they are few."""
        counts = Counter(map(str, self._values(column)))
        kinds = tuple(value for value, _ in counts.most_common())
        return kinds if len(kinds) <= MAX_EVENTS else ()

    def _values(self, column: str) -> list[object]:
        values = self._layout.values(self._layout.columns.index(column))
        return [value for value in values if str(value).strip().lower() not in MISSING]

    def _is_filled(self, column: str) -> bool:
        return 2 * len(self._values(column)) > len(self._layout.sample) or not self._layout.sample

    def _most(self, column: str, test: Callable[[object], bool]) -> bool:
        values = self._values(column)
        return self._is_filled(column) and 2 * sum(map(test, values)) > len(values)


def _is_list(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str | int) for item in value)
    return isinstance(value, str) and ITEMS.fullmatch(value) is not None


def _is_time(value: object) -> bool:
    text = str(value)
    if isinstance(value, date) or ISO.fullmatch(text):
        return True
    number = float(text) if NUMBER.fullmatch(text) else 0.0
    return any(first <= number <= last for first, last in UNIX_TIMES)


def _plain(column: str) -> str:
    """The name as SQL, quoted only if necessary."""
    return column if re.fullmatch("[a-z_][a-z0-9_]*", column) else identifier(column)


def as_words(options: TableOptions) -> str:
    """The options as command-line words."""
    words = list[str]()
    for field in fields(options):
        value = getattr(options, field.name)
        option = f"--{field.name.replace('_', '-')}"
        if isinstance(value, bool):
            words.append(option if value else f"--no-{field.name}")
        elif value is not None and field.name not in {"columns", "click_columns"}:
            words += [option, _quoted(str(value))]
    return " ".join(words)


def _quoted(word: str) -> str:
    """The word, quoted for a shell so that SQL text in single quotes stays readable."""
    plain = re.fullmatch(r"[\w\s'=<>().,%+-]+", word)
    return f'"{word}"' if "'" in word and plain else shlex.quote(word)
