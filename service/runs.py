"""What the batcher holds: requests, the pieces that they are cut into, and runs made of pieces."""

import asyncio
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from service.errors import DeadlineExceeded, ServiceError

Group = TypeVar("Group", bound=Hashable)  # only rows of one group can share a run
Row = TypeVar("Row")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Request(Generic[Result]):
    """Answered when all its rows are, failed when one of them is."""

    results: list[Any]  # of Result, and None while one is missing
    left: int
    deadline: float
    deadline_s: float
    future: asyncio.Future[list[Result]]

    def fail(self, error: ServiceError) -> None:
        """Answers with an error, unless there is an answer."""
        if not self.future.done():
            self.future.set_exception(error)

    def expire(self) -> None:
        """Fails because its time is over."""
        self.fail(DeadlineExceeded(f"no result within {self.deadline_s * 1000:,.0f} ms"))

    def is_wanted(self, now: float) -> bool:
        """Whether somebody still waits for it; expires it if it is late."""
        if self.deadline <= now:
            self.expire()
        return not self.future.done()

    def deliver(self, positions: Sequence[int], results: Sequence[Result]) -> None:
        """Takes the results of some rows; answers when they were the last."""
        for position, result in zip(positions, results, strict=True):
            self.results[position] = result
        self.left -= len(positions)
        if self.left == 0 and not self.future.done():
            self.future.set_result(self.results)


@dataclass(slots=True, eq=False)
class Piece(Generic[Group, Row, Result]):
    """Rows of one request that are computed in one run."""

    request: Request[Result]
    group: Group
    rows: list[Row]
    positions: list[int]  # of the rows in the request
    length: int  # tokens of the longest row
    tokens: int  # of all rows
    place: tuple[int, float, int]  # in the line of its group: length, due time, number


class Run(Generic[Group, Row, Result]):
    """Pieces of one group to compute at once."""

    def __init__(self, *pieces: Piece[Group, Row, Result]) -> None:
        self.pieces: list[Piece[Group, Row, Result]] = []
        self.group = pieces[0].group
        self.n_rows = self.length = self.tokens = 0
        for piece in pieces:
            self.add(piece)

    def add(self, piece: Piece[Group, Row, Result]) -> None:
        """Takes a piece of its group along."""
        self.pieces.append(piece)
        self.n_rows += len(piece.rows)
        self.length = max(self.length, piece.length)
        self.tokens += piece.tokens

    def rows(self) -> list[Row]:
        """Of all pieces, one after the other."""
        return [row for piece in self.pieces for row in piece.rows]

    def computed_tokens(self) -> int:
        """With padding."""
        return self.n_rows * self.length

    def deliver(self, results: Sequence[Result]) -> None:
        """Hands each piece's request its results."""
        start = 0
        for piece in self.pieces:
            end = start + len(piece.rows)
            piece.request.deliver(piece.positions, results[start:end])
            start = end
