"""Queries that take several steps, of which each needs what the one before it gave.

A plan is a generator: it yields steps, is sent their outputs, and returns the results. So one plan
serves the calling thread, which computes step after step, and the event loop, where other queries
go between any two of them.
"""

import asyncio
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from persona.artifact.format import GraphName
from persona.contract import DeadlineExceeded, Overloaded, Results


class Computation(Protocol):
    """What computes a step that is no run of a graph; equal ones can share a run."""

    def compute(self, inputs: Sequence[Any], /) -> list[Any]:
        """An output for each input. After a failure it may be asked again."""

    def __hash__(self) -> int: ...


@dataclass(slots=True)
class Step:
    """Inputs to compute, and what each of them costs."""

    group: GraphName | Computation
    inputs: Sequence[Any]
    tokens: Sequence[int]


Value = TypeVar("Value")
Plan = Generator[Step, Sequence[Any], Value]  # yields steps, is sent outputs, returns a value
# Queues a step: with its deadline in seconds, and whether it may be refused.
Submit = Callable[[Step, float, bool], asyncio.Future[Sequence[Any]]]


def run(plan: Plan[Results], compute: Callable[[Step], Sequence[Any]]) -> Results:
    """Computes all steps in the calling thread."""
    try:
        step = next(plan)
        while True:
            step = plan.send(compute(step))
    except StopIteration as end:
        results: Results = end.value
        return results


class Chains:
    """The plans that are under way on one event loop."""

    def __init__(self, submit: Submit, max_tokens: int) -> None:
        """Takes what queues a step, and how many tokens all plans together may have ahead."""
        self._submit = submit
        self._max_tokens = max_tokens
        self._tokens = 0

    def start(self, plan: Plan[Results], tokens: int, deadline_s: float) -> asyncio.Future[Results]:
        """Begins a plan of so many tokens; the future gives its results.

        Raises:
            InvalidRequest: the query is wrong.
            Overloaded: too many plans are under way. A larger one than all of them may be is taken
                when there is no other.
        """
        if self._tokens and self._tokens + tokens > self._max_tokens:
            raise Overloaded(
                f"searches of {self._tokens:,} tokens wait and this request has {tokens:,}, "
                f"limit {self._max_tokens:,}"
            )
        loop = asyncio.get_running_loop()
        try:
            step = next(plan)
        except StopIteration as end:
            done = loop.create_future()
            done.set_result(end.value)
            return done
        first = self._submit(step, deadline_s, False)
        self._tokens += tokens
        task = loop.create_task(self._go_on(plan, first, deadline_s))
        task.add_done_callback(lambda _: self._end(tokens, first))
        return task

    async def _go_on(
        self, plan: Plan[Results], first: asyncio.Future[Sequence[Any]], deadline_s: float
    ) -> Results:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        try:
            outputs = await first
            while True:
                step = plan.send(outputs)
                outputs = await self._submit(step, deadline - loop.time(), True)
        except StopIteration as end:
            results: Results = end.value
            return results
        except DeadlineExceeded:
            raise DeadlineExceeded(f"no result within {deadline_s * 1000:,.0f} ms") from None
        finally:
            plan.close()

    def _end(self, tokens: int, first: asyncio.Future[Sequence[Any]]) -> None:
        self._tokens -= tokens
        first.cancel()  # a task that is cancelled before it began does not
