"""Reads a query's clicks: which the encoder uses, and their values as numbers, column by column."""

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from persona.artifact import Artifact, ArtifactError
from persona.artifact.catalogue import Catalogue
from persona.contract import ITEM_ID, InvalidRequest, ItemId, Query, Result, UnknownItems
from persona.engine.limits import Limits, refuse_more
from persona.engine.padding import TYPECODES
from persona.engine.session import CLICKS, MASK, Input

STEP = 8  # histories: 1 ms, if they are long

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
        self._max_length = artifact.manifest.architecture.max_length
        self._catalogue = catalogue
        self._limits = limits
        self.typecodes = _typecodes(artifact)
        self._others = [column for column in self.typecodes if column != ITEM_ID]

    def read(self, query: Query) -> list[UsedClicks]:
        """The used clicks of each history.

        Raises:
            InvalidRequest: a column is missing or not known, a limit is passed, or an item is
                unknown and `unknown_items` is "error".
        """
        self._check(query.clicks)
        return self._read(query, range(len(query.clicks[ITEM_ID])))

    def steps(self, query: Query) -> Iterator[list[UsedClicks]]:
        """The same, few histories at a time."""
        self._check(query.clicks)
        n = len(query.clicks[ITEM_ID])
        for start in range(0, n, STEP):
            yield self._read(query, range(start, min(start + STEP, n)))

    def _read(self, query: Query, numbers: range) -> list[UsedClicks]:
        if query.unknown_items == "token":
            return [self.newest(query.clicks, number) for number in numbers]
        return [self._newest_known(query.clicks, n, query.unknown_items) for n in numbers]

    def newest(self, clicks: Clicks, number: int) -> UsedClicks:
        """The newest `max_length` clicks of a history; unknown items have the unknown row."""
        items = self._items(clicks, number)
        length = min(len(items), self._max_length)
        truncated = len(items) - length
        if truncated:  # copied only where it must be: a list of strings is slow to copy
            items = items[truncated:]
        rows = self._catalogue.rows(items)
        columns: dict[str, array[Any]] = {ITEM_ID: rows}
        for column in self._others:
            values = clicks[column][number][truncated:]
            columns[column] = array(self.typecodes[column], values)
        unknown = rows.count(self._catalogue.n_items)
        return UsedClicks(columns, length, items=items, truncated=truncated, unknown=unknown)

    def _newest_known(self, clicks: Clicks, number: int, unknown: UnknownItems) -> UsedClicks:
        """The newest `max_length` clicks of known items."""
        items, n_items = self._items(clicks, number), self._catalogue.n_items
        rows = self._catalogue.rows(items)
        known = [at for at, row in enumerate(rows) if row != n_items]
        if unknown == "error" and len(known) < len(items):
            at = rows.index(n_items)
            message = f"history {number}, item {at}: unknown item {items[at]!r:.60}"
            raise InvalidRequest(message, history=number, click=at)
        used = known[-self._max_length :]
        columns: dict[str, array[Any]] = {ITEM_ID: array("q", [rows[at] for at in used])}
        for column in self._others:
            values = clicks[column][number]
            columns[column] = array(self.typecodes[column], [values[at] for at in used])
        return UsedClicks(
            columns,
            len(used),
            items=[items[at] for at in used],
            truncated=len(known) - len(used),
            unknown=len(items) - len(known),
        )

    def _items(self, clicks: Clicks, number: int) -> Sequence[ItemId]:
        items: Sequence[ItemId] = clicks[ITEM_ID][number]
        limit = self._limits.max_history_items
        if len(items) > limit:
            refuse_more(f"history {number}", len(items), limit, "items", history=number)
        return items

    def _check(self, clicks: Clicks) -> None:
        if clicks.keys() != self.typecodes.keys():
            raise InvalidRequest(
                f"model '{self._name}' reads the columns {', '.join(self.typecodes)} of a click, "
                f"the request has {', '.join(clicks) or 'none'}"
            )
        histories = clicks[ITEM_ID]
        refuse_more("the request", len(histories), self._limits.max_histories, "histories")
        for column in self._others:
            if list(map(len, clicks[column])) != list(map(len, histories)):
                raise InvalidRequest(f"column '{column}' has not one value for each click")


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
