"""Micro-batching for CPUs: histories of like length share a run, and nobody waits for company.

Each worker process has one core, so runs are computed inline on its event loop: a second thread
would add hops and fight for the same core. What arrives in one turn of the loop forms the first
run; what arrives during a run waits for the next. docs/batching.md has the picture.

Which run is next? Every history has a due time: its arrival, plus `STRETCH_S` for each token of
its own request that is computed before it. The history that is due first leads the run. So a
large request gives way to small ones that come after it, but what arrives after a history was
due never goes before it: nobody starves. Histories of the nearest lengths, due or not, fill up
the run while it fits `max_batch_tokens` and its padding costs less than one more run would.
"""

import asyncio
import heapq
import logging
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, Generic, TypeVar

from service.errors import DeadlineExceeded, Overloaded, ServiceError
from service.logs import frames

STRETCH_S = 30e-6  # about ten times what it takes to compute a token
RUN_COST_TOKENS = 16  # the fixed cost of a run, in tokens that take as long to compute

logger = logging.getLogger(__name__)

Group = TypeVar("Group", bound=Hashable)  # only rows of one group can share a run
Row = TypeVar("Row")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class _Job(Generic[Result]):
    """One request: answered when all its rows are, failed when one of them is."""

    results: list[Any]  # of Result, and None while one is missing
    left: int
    deadline: float
    deadline_s: float
    future: asyncio.Future[list[Result]]

    def fail(self, error: ServiceError) -> None:
        if not self.future.done():
            self.future.set_exception(error)

    def expire(self) -> None:
        self.fail(DeadlineExceeded(f"no result within {self.deadline_s * 1000:,.0f} ms"))

    def deliver(self, position: int, result: Result) -> None:
        self.results[position] = result
        self.left -= 1
        if self.left == 0 and not self.future.done():
            self.future.set_result(self.results)


@dataclass(slots=True, eq=False)
class _Entry(Generic[Group, Row, Result]):
    """One row of a request."""

    group: Group
    tokens: int
    row: Row
    position: int
    job: _Job[Result]


class Batcher(Generic[Group, Row, Result]):
    """Queues the rows of requests and computes them in runs.

    `compute(group, rows)` returns one result a row; `on_run(rows, real_tokens, computed_tokens,
    queued_tokens)` hears of every run that went well, with what it took and what it left.
    """

    def __init__(
        self,
        compute: Callable[[Group, list[Row]], Sequence[Result]],
        *,
        max_batch_tokens: int,
        max_queue_tokens: int,
        on_run: Callable[[int, int, int, int], None] = lambda *_: None,
    ) -> None:
        self._compute = compute
        self._max_batch_tokens = max_batch_tokens
        self._max_queue_tokens = max_queue_tokens
        self._on_run = on_run
        # One heap by due time for each group and length; the number breaks ties. None is empty.
        self._waiting: dict[
            tuple[Group, int], list[tuple[float, int, _Entry[Group, Row, Result]]]
        ] = {}
        self._numbers = count()
        self._scheduled = False
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
        deadline = loop.time() + deadline_s
        job: _Job[Result] = _Job([None] * len(rows), len(rows), deadline, deadline_s, future)
        self._enqueue(group, rows, tokens, job, loop.time())
        timer = loop.call_at(deadline, job.expire)
        future.add_done_callback(lambda _: timer.cancel())
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
        group: Group,
        rows: Sequence[Row],
        tokens: Sequence[int],
        job: _Job[Result],
        now: float,
    ) -> None:
        ahead = 0
        # Shortest first, so that the order of due times is an order of like lengths too.
        for position in sorted(range(len(rows)), key=tokens.__getitem__):
            size = tokens[position]
            entry = _Entry(group, size, rows[position], position, job)
            heap = self._waiting.setdefault((group, size), [])
            heapq.heappush(heap, (now + STRETCH_S * ahead, next(self._numbers), entry))
            ahead += size
        self.queued_tokens += ahead

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        if not self._scheduled and self._waiting:
            self._scheduled = True
            loop.call_soon(self._flush, loop)

    def _flush(self, loop: asyncio.AbstractEventLoop) -> None:
        """Computes one run; if work is left, the loop first gets a turn to read and to answer."""
        self._scheduled = False
        batch = self._next_batch(loop.time())
        if batch:
            self._run(batch)
        self._schedule(loop)

    def _next_batch(self, now: float) -> list[_Entry[Group, Row, Result]]:
        lead = self._take_first_due(now)
        if lead is None:
            return []
        batch, longest, real = [lead], lead.tokens, lead.tokens
        for key in self._nearest_lengths(lead):
            size = key[1]
            while key in self._waiting:
                padded = (len(batch) + 1) * max(longest, size)
                if padded > self._max_batch_tokens or padded - real - size > RUN_COST_TOKENS:
                    return batch
                entry = self._take(key, now)
                if entry is not None:
                    batch.append(entry)
                    longest, real = max(longest, size), real + size
        return batch

    def _take_first_due(self, now: float) -> _Entry[Group, Row, Result] | None:
        while self._waiting:
            key = min(self._waiting, key=lambda key: self._waiting[key][0][:2])
            entry = self._take(key, now)
            if entry is not None:
                return entry
        return None

    def _nearest_lengths(self, lead: _Entry[Group, Row, Result]) -> list[tuple[Group, int]]:
        keys = [key for key in self._waiting if key[0] == lead.group]
        return sorted(keys, key=lambda key: abs(key[1] - lead.tokens))

    def _take(self, key: tuple[Group, int], now: float) -> _Entry[Group, Row, Result] | None:
        """The next row of this group and length; None if nobody waits for it any more."""
        heap = self._waiting[key]
        _, _, entry = heapq.heappop(heap)
        if not heap:
            del self._waiting[key]
        self.queued_tokens -= entry.tokens
        if entry.job.deadline <= now:
            entry.job.expire()
        return None if entry.job.future.done() else entry

    def _run(self, batch: list[_Entry[Group, Row, Result]]) -> None:
        try:
            results = self._compute(batch[0].group, [entry.row for entry in batch])
        except Exception as error:  # noqa: BLE001  # a batch's border: the worker must live on
            self._isolate(batch, error)
            return
        real = sum(entry.tokens for entry in batch)
        computed = len(batch) * max(entry.tokens for entry in batch)
        self._on_run(len(batch), real, computed, self.queued_tokens)
        for entry, result in zip(batch, results, strict=True):
            entry.job.deliver(entry.position, result)

    def _isolate(self, batch: list[_Entry[Group, Row, Result]], error: Exception) -> None:
        """After a failed run: each request once more alone, so that only the guilty one fails."""
        jobs = {id(entry.job): entry.job for entry in batch}
        if len(jobs) == 1:
            logger.error("a run of %d histories failed\n%s", len(batch), frames(error))
            batch[0].job.fail(ServiceError("internal error"))
            return
        for job in jobs.values():
            self._run([entry for entry in batch if entry.job is job])
