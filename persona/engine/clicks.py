"""Reads a query's clicks: which the encoder uses, and their values as numbers, column by column."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any

from persona.artifact import Artifact, ArtifactError
from persona.artifact.catalogue import Catalogue, rows_of
from persona.contract import ITEM_ID, TIME, InvalidRequest, ItemId, Query, Result, UnknownItems
from persona.engine.kept import Found, KeptHistories
from persona.engine.limits import Limits, refuse_more
from persona.engine.padding import TYPECODES
from persona.engine.session import CLICKS, MASK, QUERY, Input

MISSING = (None, "")  # values of categories
Clicks = Mapping[str, Sequence[Sequence[Any]]]  # column -> one list a history


@dataclass(slots=True)
class UsedClicks(Input):
    """One history as the encoder reads it, and what became of its other clicks."""

    items: Sequence[ItemId] = ()  # of the used clicks, oldest to newest
    truncated: int = 0
    unknown: int = 0

    def result(self) -> Result:
        """The answer to this history, before anything is computed."""
        return Result(self.items, self.truncated, self.unknown)


class ClickReader:
    """Reads the columns of clicks that an artifact declares."""

    def __init__(self, artifact: Artifact, catalogue: Catalogue, limits: Limits) -> None:
        """Takes the columns from the manifest.

        Raises:
            ArtifactError: a graph wants a column of an unknown datatype, or no `item_id`.
        """
        self._name = artifact.manifest.name
        architecture = artifact.manifest.architecture
        self._max_length, self._step = architecture.max_length, architecture.window_step
        self._catalogue = catalogue
        self._limits = limits
        self.typecodes = _typecodes(artifact)
        self._others = [column for column in self.typecodes if column != ITEM_ID]
        self._places = {
            column: {text: place for place, text in enumerate(fact.values)}
            for column, fact in artifact.manifest.columns.items()
            if fact.kind == "category"
        }
        self._numbers = artifact.manifest.columns.keys() - self._places.keys()
        self._reads_now = f"{QUERY}.{TIME}" in _carried(artifact)

    def read(self, query: Query, kept: KeptHistories | None = None) -> list[UsedClicks]:
        """The used clicks of each history; the new ones alone of those that are kept.

        Raises:
            InvalidRequest: a column has not one value for each click, a limit is passed, or an item
                or a category is unknown and `unknown_items` is "error".
        """
        self._check(query)
        return self.used(query, range(len(query.clicks[ITEM_ID])), kept)

    def steps(self, query: Query, kept: KeptHistories | None = None) -> Iterator[UsedClicks]:
        """The same, one history after the other."""
        self._check(query)
        for number in range(len(query.clicks[ITEM_ID])):
            yield from self.used(query, range(number, number + 1), kept)

    def used(
        self, query: Query, numbers: range, kept: KeptHistories | None = None
    ) -> list[UsedClicks]:
        """The used clicks of some histories, whose number is not checked."""
        if query.unknown_items == "token":
            found = [self._newest(query.clicks, number, kept) for number in numbers]
        else:
            found = [self._newest_known(query.clicks, n, query.unknown_items) for n in numbers]
        if self._reads_now:
            for number, used in zip(numbers, found, strict=True):
                used.now = _now(query, number, used)
        return found

    def _newest(self, clicks: Clicks, number: int, kept: KeptHistories | None) -> UsedClicks:
        """The newest clicks of a history; unknown items have the unknown row."""
        items = self._items(clicks, number)
        truncated = self._truncated(len(items))
        if truncated:  # copied only where it must be: a list of strings is slow to copy
            items = items[truncated:]
        length = len(items)
        if kept is not None and (found := kept.find(items)) is not None:
            return self._new(items, truncated, found)
        rows = rows_of(self._catalogue, items)
        columns: dict[str, array[Any]] = {ITEM_ID: rows}
        for column in self._others:
            columns[column] = self._values(clicks, column, number)[truncated:]
        unknown = rows.count(self._catalogue.n_items)
        return UsedClicks(columns, length, items=items, truncated=truncated, unknown=unknown)

    def _new(self, items: Sequence[ItemId], truncated: int, found: Found) -> UsedClicks:
        """A history of which only the new clicks are looked up."""
        rows = self._catalogue.rows(items[found.length - found.new :])
        found.unknown += rows.count(self._catalogue.n_items)
        return UsedClicks(
            {ITEM_ID: rows},
            found.length,
            kept=found,
            items=items,
            truncated=truncated,
            unknown=found.unknown,
        )

    def _truncated(self, length: int) -> int:
        """How many clicks a history has before those that the encoder reads.

        Its window begins at every `window_step`-th click.
        """
        over = length - self._max_length
        return 0 if over <= 0 else -(-over // self._step) * self._step

    def _newest_known(self, clicks: Clicks, number: int, unknown: UnknownItems) -> UsedClicks:
        """The newest clicks of known items."""
        items, n_items = self._items(clicks, number), self._catalogue.n_items
        rows = rows_of(self._catalogue, items)
        known = [at for at, row in enumerate(rows) if row != n_items]
        if unknown == "error" and len(known) < len(items):
            at = rows.index(n_items)
            message = f"history {number}, item {at}: unknown item {items[at]!r:.60}"
            raise InvalidRequest(message, history=number, click=at)
        truncated = self._truncated(len(known))
        used = known[truncated:]
        columns: dict[str, array[Any]] = {ITEM_ID: array("q", [rows[at] for at in used])}
        for column in self._others:
            values = self._values(clicks, column, number)
            if unknown == "error" and values:
                self._refuse_unknown(clicks[column][number], column, number)
            columns[column] = array(self.typecodes[column], [values[at] for at in used])
        return UsedClicks(
            columns,
            len(used),
            items=[items[at] for at in used],
            truncated=truncated,
            unknown=len(items) - len(known),
        )

    def _items(self, clicks: Clicks, number: int) -> Sequence[ItemId]:
        items: Sequence[ItemId] = clicks[ITEM_ID][number]
        limit = self._limits.max_history_items
        if len(items) > limit:
            refuse_more(f"history {number}", len(items), limit, "items", history=number)
        return items

    def _values(self, clicks: Clicks, column: str, number: int) -> "array[Any]":
        """A column of a history, of which the items are counted."""
        values = clicks[column][number] if column in clicks else ()
        n_items = len(clicks[ITEM_ID][number])
        if len(values) != n_items:
            raise InvalidRequest(
                f"history {number} has {n_items:,} items and {len(values):,} values of '{column}', "
                f"which model '{self._name}' reads of every click",
                history=number,
            )
        typecode = self.typecodes[column]
        if (places := self._places.get(column)) is not None:
            # A missing category is read as an unknown one.
            texts = ("" if one is None else str(one) for one in values)
            return array(typecode, [places.get(text, len(places)) for text in texts])
        try:
            if column in self._numbers and None in values:
                values = [nan if one is None else one for one in values]
            # Seconds may come with a fraction where whole ones are read.
            return array(typecode, map(int, values) if typecode == "q" else values)
        except (OverflowError, TypeError, ValueError):
            message = f"history {number}: a value of '{column}' is no number in range"
            raise InvalidRequest(message, history=number) from None

    def _refuse_unknown(self, values: Sequence[Any], column: str, number: int) -> None:
        places = self._places.get(column)
        if places is None:
            return
        for at, value in enumerate(values):
            if value not in MISSING and str(value) not in places:
                message = f"history {number}, click {at}: unknown {column} {value!r:.60}"
                raise InvalidRequest(message, history=number, click=at)

    def _check(self, query: Query) -> None:
        """What a model does not read is ignored: another version of it may read more."""
        clicks = query.clicks
        if ITEM_ID not in clicks:
            raise InvalidRequest(f"the request has no column '{ITEM_ID}' of clicks")
        n = len(clicks[ITEM_ID])
        refuse_more("the request", n, self._limits.max_histories, "histories")
        for column in self._others:
            if column in clicks and len(clicks[column]) != n:
                found = len(clicks[column])
                raise InvalidRequest(f"column '{column}' is of {found:,} histories, not of {n:,}")
        if query.now and len(query.now) != n:
            raise InvalidRequest(f"times of asking are {len(query.now):,}, histories {n:,}")


def _now(query: Query, number: int, used: UsedClicks) -> int:
    """When a history is asked about: at its newest used click, or later where `now` says so.

    The second that a known time is later by, at least, tells it from one that is not known.
    """
    newest: int = used.clicks[TIME][-1] if used.length else 0
    now = query.now[number] if query.now else None
    if now is None:
        return newest
    try:
        asked: int = array("q", [int(now)])[0]
    except (OverflowError, TypeError, ValueError):
        message = f"history {number}: the time of asking is no number in range"
        raise InvalidRequest(message, history=number) from None
    return max(asked, newest + 1)


def _carried(artifact: Artifact) -> set[str]:
    """What the inputs of the graphs carry."""
    graphs = artifact.manifest.graphs.values()
    return {tensor.carries for graph in graphs for tensor in graph.inputs}


def _typecodes(artifact: Artifact) -> dict[str, str]:
    """The columns of clicks that the graphs read, each with the type of its array."""
    typecodes: dict[str, str] = {}
    for graph in artifact.manifest.graphs.values():
        for tensor in graph.inputs:
            part, column = tensor.carries.split(".", 1)
            if part != CLICKS or column == MASK:
                continue
            if tensor.datatype not in TYPECODES:
                raise ArtifactError(
                    f"{artifact.folder / graph.file}: input '{tensor.name}' carries a column of "
                    f"datatype {tensor.datatype}, not one of {', '.join(TYPECODES)}"
                )
            typecodes[column] = TYPECODES[tensor.datatype]
    if ITEM_ID not in typecodes:
        raise ArtifactError(f"{artifact.folder}: no graph reads the column '{ITEM_ID}'")
    return typecodes
