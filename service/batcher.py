"""Micro-batching for CPUs: histories of like length share a run, and nobody waits for company.

Each worker process has one core, so runs are computed inline on its event loop: a second thread
would add hops and fight for the same core. Nothing waits for what may come, but what is there is
read first. Then it is computed in as many runs as it takes, up to `max_batch_tokens`: all of them
are prepared, then computed, then answered, because a run leaves the core's caches without Python,
and what follows it is slow. docs/batching.md has the picture.

What waits is not rows but pieces. A request is cut when it arrives: its rows, shortest first, in
pieces that a run can take whole; one history is a piece of one. So the queue costs a large
request as much as a few small ones.

Which run is next? Every piece has a due time: its arrival, plus `STRETCH_S` for each token of its
own request that is computed before it. The piece that is due first leads the run. So a large
request gives way to small ones that come after it, but what arrives after a piece was due never
goes before it: nobody starves. Pieces of the nearest lengths, due or not, fill up the run while
it fits `max_batch_tokens` and its padding costs less than one more run would.
"""

import asyncio
import heapq
import logging
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Generic, TypeVar

from service.errors import Overloaded, ServiceError
from service.logs import frames
from service.runs import Group, Piece, Request, Result, Row, Run
from service.timeouts import Timeouts

STRETCH_S = 30e-6  # about ten times what it takes to compute a token
RUN_COST_TOKENS = 32  # the fixed cost of a run, in tokens that take as long to compute
MAX_MISFITS = 4  # pieces that a run passes over before it starts as it is

logger = logging.getLogger(__name__)

Value = TypeVar("Value")


class Batcher(Generic[Group, Row, Result]):
    """Queues the rows of requests and computes them in runs.

    `prepare(group, rows)` returns what computes them, one result a row; `admit(rows)` sees the rows
    of all that has arrived, together, before any of them is prepared; `on_run(rows, real_tokens,
    computed_tokens, queued_tokens)` hears of every run that went well, with what it took and what
    it left.
    """

    def __init__(
        self,
        prepare: Callable[[Group, list[Row]], Callable[[], Sequence[Result]]],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        admit: Callable[[Sequence[Row]], object] = lambda _: None,
        on_run: Callable[[int, int, int, int], None] = lambda *_: None,
    ) -> None:
        self._prepare = prepare
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._admit = admit
        self._on_run = on_run
        self._numbers = count()
        self._waiting: dict[int, Piece[Group, Row, Result]] = {}  # by number
        self._due: list[tuple[float, int]] = []  # a heap; may still name pieces that left
        self._lines: dict[Group, list[tuple[int, float, int]]] = {}  # sorted places
        self._scheduled = False
        self._arrived = False  # something did, since the loop last looked for more
        self._new: list[tuple[Request[Result], Sequence[Row]]] = []  # not yet admitted
        self.timeouts = Timeouts()
        self.queued_tokens = 0

    def submit(
        self, group: Group, rows: Sequence[Row], tokens: Sequence[int], *, deadline_s: float
    ) -> asyncio.Future[list[Result]]:
        """Queues the rows of one request; the future gives their results in the same order.

        Cancelling the future takes its rows out of the queue.

        Raises:
            Overloaded: the queue is full. A request larger than the whole queue is taken when
                nothing else waits.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Result]] = loop.create_future()
        if not rows:
            future.set_result([])
            return future
        self._refuse_overload(sum(tokens))
        now, n = loop.time(), len(rows)
        request: Request[Result] = Request([None] * n, n, now + deadline_s, deadline_s, future)
        self._enqueue(request, group, rows, tokens, now)
        self.timeouts.watch(future, deadline_s, request.expire)
        self._new.append((request, rows))
        self._arrived = True
        self._schedule(loop)
        return future

    def _refuse_overload(self, tokens: int) -> None:
        if self.queued_tokens and self.queued_tokens + tokens > self._max_queue_tokens:
            raise Overloaded(
                f"the queue is full: {self.queued_tokens:,} tokens wait, {tokens:,} more are "
                f"asked for, limit {self._max_queue_tokens:,}"
            )

    def _enqueue(
        self,
        request: Request[Result],
        group: Group,
        rows: Sequence[Row],
        tokens: Sequence[int],
        now: float,
    ) -> None:
        due = now
        line = self._lines.setdefault(group, [])
        for positions, real in self._cut(tokens):
            place = (tokens[positions[-1]], due, next(self._numbers))
            chosen = [rows[position] for position in positions]
            piece = Piece(request, group, chosen, positions, place[0], real, place)
            self._waiting[place[2]] = piece
            heapq.heappush(self._due, place[1:])
            insort(line, place)
            self.queued_tokens += real
            due += STRETCH_S * real

    def _cut(self, tokens: Sequence[int]) -> Iterator[tuple[list[int], int]]:
        """Positions in pieces, shortest first, and the tokens of each piece."""
        if len(tokens) == 1:
            yield [0], tokens[0]
            return
        piece: list[int] = []
        real = 0
        for position in sorted(range(len(tokens)), key=tokens.__getitem__):
            size = tokens[position]
            if piece and not self._fits(len(piece) + 1, size, real + size):
                yield piece, real
                piece, real = [], 0
            piece.append(position)
            real += size
        yield piece, real

    def _fits(self, n_rows: int, length: int, real: int) -> bool:
        padded = n_rows * length
        return padded <= self._max_batch_tokens and padded - real <= RUN_COST_TOKENS

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and self._waiting:
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._arrived and self.queued_tokens < self._max_batch_tokens:
            self._arrived = False
            loop.call_soon(self._flush, loop)  # after it has read what is there to be read
            return
        self._scheduled = False
        self._admit_new()
        self._compute(list(self._plan(loop.time())))
        self._schedule(loop)

    def _admit_new(self) -> None:
        new, self._new = self._new, []
        rows = [row for _, rows in new for row in rows]
        if not isinstance(_attempt(partial(self._admit, rows)), Exception):
            return
        for request, rows_ in new:  # once more, each alone, so that only the guilty one fails
            outcome = _attempt(partial(self._admit, rows_))
            if isinstance(outcome, Exception):
                logger.error("a request of %d histories failed\n%s", len(rows_), frames(outcome))
                request.fail(ServiceError("internal error"))

    def _plan(self, now: float) -> Iterator[Run[Group, Row, Result]]:
        """The runs of one turn of the loop."""
        planned = 0
        while planned < self._max_batch_tokens and (lead := self._first_due(now)) is not None:
            run = self._with_company(lead, now)
            planned += run.computed_tokens()
            yield run

    def _first_due(self, now: float) -> Piece[Group, Row, Result] | None:
        while self._due:
            _, number = heapq.heappop(self._due)
            piece = self._waiting.get(number)
            if piece is not None:
                self._remove(piece)
                if piece.request.is_wanted(now):
                    return piece
        return None

    def _with_company(self, lead: Piece[Group, Row, Result], now: float) -> Run[Group, Row, Result]:
        run, leaving, misfits = Run(lead), [], 0
        for piece in self._nearest(lead):
            if piece.request.is_wanted(now):
                length = max(run.length, piece.length)
                if not self._fits(run.n_rows + len(piece.rows), length, run.tokens + piece.tokens):
                    misfits += 1
                    one_row = self._fits(run.n_rows + 1, length, run.tokens + piece.length)
                    if one_row and misfits < MAX_MISFITS:
                        continue  # a smaller piece may fit
                    break
                run.add(piece)
            leaving.append(piece)
        for piece in leaving:
            self._remove(piece)
        return run

    def _nearest(self, lead: Piece[Group, Row, Result]) -> Iterator[Piece[Group, Row, Result]]:
        """What waits in the lead's group, nearest length first."""
        line = self._lines[lead.group]
        longer = bisect_left(line, lead.place)
        shorter = longer - 1
        while shorter >= 0 or longer < len(line):
            if longer == len(line) or (
                shorter >= 0 and lead.length - line[shorter][0] < line[longer][0] - lead.length
            ):
                at, shorter = shorter, shorter - 1
            else:
                at, longer = longer, longer + 1
            yield self._waiting[line[at][2]]

    def _remove(self, piece: Piece[Group, Row, Result]) -> None:
        del self._waiting[piece.place[2]]
        line = self._lines[piece.group]
        del line[bisect_left(line, piece.place)]
        self.queued_tokens -= piece.tokens

    def _compute(self, runs: Sequence[Run[Group, Row, Result]]) -> None:
        prepared = [_attempt(partial(self._prepare, run.group, run.rows())) for run in runs]
        outcomes = [work if isinstance(work, Exception) else _attempt(work) for work in prepared]
        for run, outcome in zip(runs, outcomes, strict=True):
            if isinstance(outcome, Exception):
                self._isolate(run, outcome)
                continue
            self._on_run(run.n_rows, run.tokens, run.computed_tokens(), self.queued_tokens)
            run.deliver(outcome)

    def _isolate(self, run: Run[Group, Row, Result], error: Exception) -> None:
        """After a failed run: each request once more alone, so that only the guilty one fails."""
        requests = {id(piece.request): piece.request for piece in run.pieces}
        if len(requests) == 1:
            logger.error("a run of %d histories failed\n%s", run.n_rows, frames(error))
            run.pieces[0].request.fail(ServiceError("internal error"))
            return
        self._compute(
            [
                Run(*(piece for piece in run.pieces if piece.request is request))
                for request in requests.values()
            ]
        )


def _attempt(work: Callable[[], Value]) -> Value | Exception:
    try:
        return work()
    except Exception as error:  # noqa: BLE001  # a batch's border: the worker must live on
        return error
