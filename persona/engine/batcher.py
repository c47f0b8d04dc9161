"""Micro-batching for CPUs: histories of similar length share a run, and none waits for company.

A worker process has one core, so it computes runs inline on its event loop: a second thread would
add hand-overs and compete for the same core. The batcher has no timer. It first lets the loop read
what has arrived, then plans runs until they fill `max_batch_tokens` or the queue is empty, pads all
of them, computes all, and answers all: a run pushes Python's code and data out of the core's
caches, and this way that is paid once a turn.

The queue holds pieces, not histories. A query is sorted by length when it arrives, and cut into
pieces that a run can take whole. So a large query costs the queue no more than a few small ones.

Each piece has a due time: its arrival, plus `STRETCH_S` for each token of its own query that is
computed before it. The piece that is due first leads the next run. A large query thus gives way to
small ones that arrive after it, but nothing that arrives after a piece was due goes before it, so
none starves. Pieces of the nearest lengths fill up the run. docs/batching.md has the picture.

A query is refused at once if what goes before it will take longer than its deadline allows:
`Backlog` knows how long that is.
"""

import asyncio
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from math import inf
from typing import Any, Generic, TypeVar

from persona.engine.backlog import PIECE_TOKENS, STRETCH_S, Backlog
from persona.engine.piece_queue import PieceQueue
from persona.engine.runs import Input, Output, Piece, Run, Submission, cut, fits
from persona.engine.timeouts import TICK_S

MAX_MISFITS = 4  # pieces that a run passes over before it starts as it is
SMALL_TOKENS = 256
COMPANY_S = 0.5  # how long after a small query the next one is expected

Value = TypeVar("Value")
Result = TypeVar("Result")


@dataclass(slots=True)
class RunStats:
    """What one run took, and what it left in the queue."""

    histories: int
    tokens: int  # real clicks, start tokens and candidates
    computed_tokens: int  # the same with padding
    queued_tokens: int
    queued_s: float  # how long its first history had waited
    computed_s: float
    turn_s: float  # of all runs that were computed together, padding included
    group: Hashable  # what ran


class Batcher(Generic[Input, Output]):
    """Queues the inputs of queries and computes them in runs; belongs to one event loop.

    Args:
        prepare: `prepare(group, inputs)` returns what computes them, one output an input.
        max_batch_tokens: of a run, padding included.
        max_queue_tokens: that may wait.
        on_run: called after every run that succeeded.
    """

    def __init__(
        self,
        prepare: Callable[[Any, list[Input]], Callable[[], Sequence[Output]]],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        on_run: Callable[[RunStats], None] = lambda _: None,
    ) -> None:
        self._prepare = prepare
        self._max_batch_tokens = max_batch_tokens
        self._on_run = on_run
        self._loop: asyncio.AbstractEventLoop | None = None
        self._numbers = count()
        self.backlog = Backlog(max_queue_tokens)
        self._queue: PieceQueue[Input, Output] = PieceQueue(self.backlog)
        self._scheduled = False
        self._arrived = False  # whether something did since the loop last looked for more
        self._looks_for_late = False
        self._small_until = 0.0  # small queries are expected, on the event loop's clock
        self._progress = 0.0  # when something was computed or began to wait, by perf_counter

    def submit(
        self,
        group: Hashable,
        inputs: Sequence[Input],
        tokens: Sequence[int],
        finish: Callable[[Sequence[Output]], Result],
        *,
        deadline_s: float,
        admitted: bool = False,
        counted: bool = True,
    ) -> asyncio.Future[Result]:
        """Queues the inputs of one query; the future gives `finish(outputs)`, in their order.

        Only inputs of one group can share a run. The future fails with DeadlineExceeded after
        `deadline_s` seconds. Cancelling it takes the inputs out of the queue. What is not
        `counted` is left out of `RunStats`, and of what others wait for.

        Raises:
            Overloaded: the queue is full, or the deadline would pass in it, and the query is not
                `admitted`. What is larger is taken when nothing else waits.
        """
        loop = self._loop
        if loop is None or loop.is_closed():
            loop = self._loop = self._begin()
        future: asyncio.Future[Result] = loop.create_future()
        if not inputs:
            future.set_result(finish([]))
            return future
        now, n, total = loop.time(), len(inputs), sum(tokens)
        arrived = time.perf_counter()
        submission: Submission[Output] = Submission(
            [None] * n, n, now + deadline_s, deadline_s, finish, future, arrived, counted
        )
        pieces = self._cut(submission, group, inputs, tokens, now)
        if not admitted:  # not a later step of a query that was
            self.backlog.admit(total, sum([piece.seconds for piece in pieces]), deadline_s, now)
        if not self._queue:
            self._progress = arrived
        if counted and total <= SMALL_TOKENS:
            self._small_until = now + COMPANY_S
        for piece in pieces:
            self._queue.add(piece, now)
        self._arrived = True
        self._schedule(loop)
        if not self._looks_for_late:
            self._looks_for_late = True
            loop.call_later(TICK_S, self._expire_late, loop)
        return future

    def _begin(self) -> asyncio.AbstractEventLoop:
        """The loop that runs. It is kept, as asking for it is a system call in Python 3.11."""
        self._scheduled = self._arrived = self._looks_for_late = False
        return asyncio.get_running_loop()

    def waiting_s(self) -> float:
        """Seconds since something waits and nothing is computed."""
        return time.perf_counter() - self._progress if self._queue else 0.0

    def _expire_late(self, loop: asyncio.AbstractEventLoop) -> None:
        """Fails what has waited for too long, every tick while anything waits."""
        self._queue.expire(loop.time())
        self._looks_for_late = bool(self._queue)
        if self._looks_for_late:
            loop.call_later(TICK_S, self._expire_late, loop)

    def _cut(
        self,
        submission: Submission[Output],
        group: Hashable,
        inputs: Sequence[Input],
        tokens: Sequence[int],
        now: float,
    ) -> list[Piece[Input, Output]]:
        due, pieces = now, []
        for positions, total in cut(tokens, min(PIECE_TOKENS, self._max_batch_tokens)):
            place = (tokens[positions[-1]], due, next(self._numbers))
            chosen = [inputs[position] for position in positions]
            seconds = self.backlog.pace.seconds(group, total)
            pieces.append(
                Piece(submission, group, chosen, positions, place[0], total, place, seconds)
            )
            due += STRETCH_S * total
        return pieces

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and self._queue:
            self._scheduled = True
            loop.call_soon(self._turn, loop)

    def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Computes what waits, after the loop has read what has arrived."""
        if self._arrived and self.backlog.tokens < self._max_batch_tokens:
            self._arrived = False
            loop.call_soon(self._turn, loop)
            return
        self._scheduled = False
        try:
            self._compute(list(self._plan(loop.time())))
            self._progress = self.backlog.pace.end_turn(self._progress)
        finally:
            self._schedule(loop)

    def _plan(self, now: float) -> Iterator[Run[Input, Output]]:
        """The runs of one turn of the loop.

        While small queries come, what is not due soon has a turn of its own, and a short one.
        """
        planned, alone = 0, now > self._small_until
        soon = inf if alone else now + SMALL_TOKENS * STRETCH_S
        while planned < self._max_batch_tokens and (lead := self._queue.first_due(now)) is not None:
            if lead.place[1] <= soon:
                run = self._fill(lead, now, self._max_batch_tokens, soon)
                planned += run.computed_tokens()
            elif not planned:
                run = self._fill(lead, now, min(PIECE_TOKENS, self._max_batch_tokens), inf)
                planned = self._max_batch_tokens
            else:
                return
            yield run

    def _fill(
        self, lead: Piece[Input, Output], now: float, max_tokens: int, latest: float
    ) -> Run[Input, Output]:
        """A run of the leading piece and the pieces of the nearest lengths that fit.

        Those that are due after `latest` do not.
        """
        self._queue.remove(lead)
        run: Run[Input, Output] = Run(lead)
        leaving, misfits = [], 0
        for piece in self._queue.nearest(lead):
            if piece.submission.is_wanted(now):
                length = max(run.length, piece.length)
                tokens, n = run.tokens + piece.tokens, run.n_inputs + len(piece.inputs)
                if piece.place[1] > latest or not fits(n, length, tokens, max_tokens):
                    misfits += 1
                    smaller = fits(run.n_inputs + 1, length, run.tokens + piece.length, max_tokens)
                    if misfits < MAX_MISFITS and smaller:
                        continue  # a smaller piece may fit
                    break
                run.add(piece)
            leaving.append(piece)
        for piece in leaving:
            self._queue.remove(piece)
        return run

    def _compute(self, runs: Sequence[Run[Input, Output]]) -> None:
        began = time.perf_counter()
        prepared = [_attempt(partial(self._prepare, run.group, run.inputs())) for run in runs]
        times, outcomes = [time.perf_counter()], []
        for run, work in zip(runs, prepared, strict=True):
            outcomes.append(work if isinstance(work, Exception) else _attempt(work))
            times.append(time.perf_counter())
            seconds = times[-1] - times[-2]
            self.backlog.pace.add_run(run.group, run.tokens, len(run.pieces), seconds)
        for run, outcome, start, end in zip(runs, outcomes, times, times[1:], strict=False):
            if isinstance(outcome, Exception):
                self._isolate(run, outcome)
                continue
            if run.n_counted():
                self._on_run(self._stats(run, began, end - start, times[-1] - began))
            run.deliver(outcome)

    def _stats(
        self, run: Run[Input, Output], began: float, computed_s: float, turn_s: float
    ) -> RunStats:
        return RunStats(
            run.n_counted(),
            run.tokens,
            run.computed_tokens(),
            self.backlog.tokens,
            began - run.pieces[0].submission.arrived,
            computed_s,
            turn_s,
            run.group,
        )

    def _isolate(self, run: Run[Input, Output], error: Exception) -> None:
        """After a failed run, computes each submission alone, so that only the cause fails."""
        submissions = {id(piece.submission): piece.submission for piece in run.pieces}
        if len(submissions) == 1:
            run.pieces[0].submission.fail(error)
            return
        self._compute(
            [
                Run(*(piece for piece in run.pieces if piece.submission is submission))
                for submission in submissions.values()
            ]
        )


def _attempt(work: Callable[[], Value]) -> Value | Exception:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # a batch's border: the worker must live on
        return error
