"""What the batcher holds: submissions, the pieces that they are cut into, and runs of pieces."""

import asyncio
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from persona.contract import DeadlineExceeded

Input = TypeVar("Input")
Output = TypeVar("Output")

RUN_COST_TOKENS = 32  # the fixed cost of a run, in tokens that take as long to compute


@dataclass(slots=True, eq=False)
class Submission(Generic[Output]):
    """The inputs of one query: answered when all are computed, failed when one of them fails."""

    outputs: list[Any]  # of Output, and None while one is missing
    missing: int
    deadline: float  # on the event loop's clock
    deadline_s: float
    finish: Callable[[Sequence[Output]], Any]  # outputs to the future's result
    future: asyncio.Future[Any]
    arrived: float  # by time.perf_counter: the loop's clock may stand still for a millisecond
    counted: bool = True  # in what is told of runs

    def fail(self, error: Exception) -> None:
        """Answers with an error, unless there is an answer."""
        if not self.future.done():
            self.future.set_exception(error)

    def expire(self) -> None:
        """Fails because its deadline has passed."""
        self.fail(DeadlineExceeded(f"no result within {self.deadline_s * 1000:,.0f} ms"))

    def is_wanted(self, now: float) -> bool:
        """Whether somebody still waits for it; a submission that is late expires."""
        if self.deadline <= now:
            self.expire()
        return not self.future.done()

    def deliver(self, positions: Sequence[int], outputs: Sequence[Output]) -> None:
        """Takes the outputs of some inputs; answers when they were the last."""
        for position, output in zip(positions, outputs, strict=True):
            self.outputs[position] = output
        self.missing -= len(positions)
        if self.missing == 0 and not self.future.done():
            try:
                self.future.set_result(self.finish(self.outputs))
            except Exception as error:  # noqa: BLE001  # a batch's border: only this one fails
                self.fail(error)


@dataclass(slots=True, eq=False)
class Piece(Generic[Input, Output]):
    """Inputs of one submission that are computed in one run."""

    submission: Submission[Output]
    group: Hashable  # only pieces of one group can share a run
    inputs: list[Input]
    positions: list[int]  # of the inputs in the submission
    length: int  # tokens of the longest input
    tokens: int  # of all inputs
    place: tuple[int, float, int]  # in the queue of its group: length, due time, number
    seconds: float  # that computing it will take
    is_due: bool = False
    waits: bool = True


class Run(Generic[Input, Output]):
    """Pieces of one group to compute at once."""

    def __init__(self, *pieces: Piece[Input, Output]) -> None:
        self.pieces: list[Piece[Input, Output]] = []
        self.group = pieces[0].group
        self.n_inputs = self.length = self.tokens = 0
        for piece in pieces:
            self.add(piece)

    def add(self, piece: Piece[Input, Output]) -> None:
        """Adds a piece of the same group."""
        self.pieces.append(piece)
        self.n_inputs += len(piece.inputs)
        self.length = max(self.length, piece.length)
        self.tokens += piece.tokens

    def inputs(self) -> list[Input]:
        """The inputs of all pieces, in order."""
        return [one for piece in self.pieces for one in piece.inputs]

    def n_counted(self) -> int:
        """Inputs that `RunStats` counts."""
        return sum([len(piece.inputs) for piece in self.pieces if piece.submission.counted])

    def computed_tokens(self) -> int:
        """Tokens including padding."""
        return self.n_inputs * self.length

    def deliver(self, outputs: Sequence[Output]) -> None:
        """Hands each piece's outputs to its submission."""
        start = 0
        for piece in self.pieces:
            end = start + len(piece.inputs)
            piece.submission.deliver(piece.positions, outputs[start:end])
            start = end


def fits(n_inputs: int, length: int, tokens: int, max_batch_tokens: int) -> bool:
    """Whether inputs may share a run: within the budget, and padding costs less than a new run."""
    padded = n_inputs * length
    return padded <= max_batch_tokens and padded - tokens <= RUN_COST_TOKENS


def cut(tokens: Sequence[int], max_batch_tokens: int) -> Iterator[tuple[list[int], int]]:
    """Cuts inputs into pieces that a run can take whole, shortest inputs first.

    Args:
        tokens: of each input.
        max_batch_tokens: of a run, padding included. A longer input is a piece alone.

    Yields:
        The positions of a piece's inputs, and the tokens of the piece.
    """
    if len(tokens) == 1:
        yield [0], tokens[0]
        return
    piece: list[int] = []
    total = 0
    for position in sorted(range(len(tokens)), key=tokens.__getitem__):
        size = tokens[position]
        if piece and not fits(len(piece) + 1, size, total + size, max_batch_tokens):
            yield piece, total
            piece, total = [], 0
        piece.append(position)
        total += size
    if piece:
        yield piece, total
