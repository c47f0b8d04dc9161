"""Who is let into the queue: whoever can still be answered in time. Nothing here waits for that.

Before anything is computed, a token counts for 5 µs and a piece for 50 µs.
"""

import asyncio
import gc
import weakref
from collections.abc import Callable
from functools import partial
from time import perf_counter

import pytest

from persona.contract import Overloaded
from persona.engine.pace import FIRST_TOKEN_S, Pace
from tests.engine.test_batcher import Bench, run


def test_a_query_that_would_be_late_is_refused_and_told_when_there_is_room() -> None:
    async def main() -> None:
        bench = Bench()
        first = bench.submit("x" * 9000)  # 45 ms
        with pytest.raises(Overloaded, match=r"takes 45 ms .* long for 50 ms") as late:
            bench.submit("a", deadline_s=0.05)
        assert late.value.retry_after_s == pytest.approx(0.0075, abs=5e-4)  # until 37.5 ms are left
        second = bench.submit("a", deadline_s=0.07)
        await asyncio.gather(first, second, return_exceptions=True)

    run(main())


def test_a_query_that_takes_longer_than_its_deadline_waits_for_an_empty_queue() -> None:
    async def main() -> None:
        bench = Bench()
        first = bench.submit("x" * 9000)
        with pytest.raises(Overloaded) as late:
            bench.submit("y" * 200, deadline_s=0.001)
        assert late.value.retry_after_s == pytest.approx(0.045, abs=5e-4)
        await first
        bench.submit("y" * 900, deadline_s=0.001).cancel()  # is let in now

    run(main())


def test_a_small_query_is_not_refused_for_what_it_overtakes() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=2000, max_queue_tokens=100_000)
        large = bench.submit(*["x" * 100] * 100)  # 50 ms, of which the first piece, 1 ms, is due
        with pytest.raises(Overloaded):
            bench.submit(*["y" * 100] * 100, deadline_s=0.1)
        small = bench.submit("small", deadline_s=0.01)
        bench.batcher.backlog.refuse_late(0.01, 0)
        with pytest.raises(Overloaded):
            bench.batcher.backlog.refuse_late(0.1, 10_000)
        with pytest.raises(Overloaded):
            bench.batcher.backlog.refuse_late(0.001, 0)
        await asyncio.gather(large, small, return_exceptions=True)

    run(main())


def test_an_empty_queue_takes_no_time() -> None:
    async def main() -> None:
        bench = Bench()
        await asyncio.gather(*(bench.submit(*["x" * n] * 9) for n in (3, 30, 90)))
        assert bench.batcher.backlog.tokens == 0
        bench.batcher.backlog.refuse_late(1e-9, 0)
        assert bench.batcher.waiting_s() == 0

    run(main())


def test_what_waits_while_nothing_is_computed_is_noticed() -> None:
    async def main() -> None:
        bench = Bench()
        future = bench.submit("a")
        assert bench.batcher.waiting_s() > 0
        await future
        assert bench.batcher.waiting_s() == 0

    run(main())


def test_while_small_queries_come_a_large_one_is_computed_in_short_runs() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=2000, max_queue_tokens=100_000)
        await asyncio.gather(bench.submit("small"), bench.submit(*["x" * 100] * 100))
        assert max(len(rows) for rows in bench.recorder.runs) <= 4

    run(main())


def test_without_small_queries_runs_are_as_large_as_allowed() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=2000, max_queue_tokens=100_000)
        await bench.submit(*["x" * 100] * 100)
        assert [len(rows) for rows in bench.recorder.runs] == [20] * 5

    run(main())


def test_a_probe_is_left_out_of_the_counts() -> None:
    async def main() -> None:
        bench = Bench()
        submit = bench.batcher.submit
        probe = submit("g", ["p"], [1], list, deadline_s=1, counted=False)
        await asyncio.gather(probe, bench.submit("a", "b"))
        await submit("g", ["p"], [1], list, deadline_s=1, counted=False)
        assert [stats.histories for stats in bench.stats] == [2]

    run(main())


def test_the_pace_follows_what_is_measured() -> None:
    pace = Pace()
    assert pace.seconds("g", 1000, 0) == pytest.approx(1000 * FIRST_TOKEN_S)
    for _ in range(100):
        pace.add_run("g", 1000, 1, 1.0)
    assert pace.seconds("g", 1000, 0) == pytest.approx(1.0, rel=0.1)
    assert pace.seconds("another", 1000, 0) == pytest.approx(1000 * FIRST_TOKEN_S)


def test_short_runs_do_not_make_tokens_look_slow() -> None:
    pace = Pace()
    for _ in range(10_000):
        pace.add_run("g", 1, 1, 1e-3)
    assert pace.seconds("g", 1000, 0) < 1000 * 1e-3 / 10


def test_what_requests_cost_beside_their_tokens_is_not_expected_of_large_ones() -> None:
    pace = Pace()
    for _ in range(100):
        began = perf_counter() - 10  # 10 s for 100 requests of a token each
        pace.add_run("g", 100, 100, 100 * FIRST_TOKEN_S)
        pace.end_turn(began)
    assert pace.seconds("g", 1) > 0.05
    assert pace.seconds("g", 1000) < 2 * pace.seconds("g", 1)


def test_a_refusal_does_not_wait_for_the_garbage_collector() -> None:
    """Its traceback holds frames, and through them requests: none of these may hold the refusal."""

    async def main() -> None:
        bench = Bench(max_queue_tokens=10_000)
        first = bench.submit("x" * 9000)
        for refuse in (
            partial(bench.submit, "y" * 2000),  # the queue is full
            partial(bench.submit, "a", deadline_s=0.01),
            partial(bench.batcher.backlog.refuse_late, 0.001, 0),
        ):
            assert is_freed(refuse)
        await asyncio.gather(first, return_exceptions=True)

    run(main())


def is_freed(refuse: Callable[[], object]) -> bool:
    """Whether a refusal is gone as soon as it is handled."""
    gc.collect()
    gc.disable()
    try:
        try:
            refuse()
        except Overloaded as error:
            refusal = weakref.ref(error)
        else:
            pytest.fail("not refused")
        return refusal() is None
    finally:
        gc.enable()
