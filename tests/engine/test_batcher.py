"""The batcher, around a function that notes what it is given."""

import asyncio
import gc
import weakref
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from persona.contract import DeadlineExceeded, Overloaded
from persona.engine.backlog import STRETCH_S
from persona.engine.batcher import Batcher, RunStats
from persona.engine.runs import RUN_COST_TOKENS

Inputs = list[str]  # an input is a text; its length is what it costs


class Recorder:
    """Computes the upper case, and refuses inputs that contain "bad"."""

    def __init__(self) -> None:
        self.prepared: list[Inputs] = []
        self.prepared_before: list[int] = []  # runs, before each run began
        self.runs: list[Inputs] = []

    def __call__(self, _group: str, inputs: Inputs) -> Callable[[], list[str]]:
        if "cannot be padded" in inputs:
            raise ValueError(inputs)
        self.prepared.append(inputs)
        return lambda: self.compute(inputs)

    def compute(self, inputs: Inputs) -> list[str]:
        self.prepared_before.append(len(self.prepared))
        self.runs.append(inputs)
        if any("bad" in text for text in inputs):
            raise ValueError(inputs)
        return [text.upper() for text in inputs]


class Bench:
    """A batcher over a recorder."""

    def __init__(self, max_batch_tokens: int = 100, max_queue_tokens: int = 10_000) -> None:
        self.recorder = Recorder()
        self.stats: list[RunStats] = []
        self.batcher: Batcher[str, str] = Batcher(
            self.recorder,
            max_batch_tokens=max_batch_tokens,
            max_queue_tokens=max_queue_tokens,
            on_run=self.stats.append,
        )

    def submit(
        self, *inputs: str, group: str = "g", deadline_s: float = 10
    ) -> asyncio.Future[list[str]]:
        tokens = [len(text) for text in inputs]
        return self.batcher.submit(group, inputs, tokens, finish, deadline_s=deadline_s)

    def run_of(self, text: str) -> int:
        return next(number for number, run in enumerate(self.recorder.runs) if text in run)


def finish(outputs: Sequence[str]) -> list[str]:
    if "UNFINISHED" in outputs:
        raise KeyError(outputs)
    return list(outputs)


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def padded(rows: Sequence[str]) -> int:
    return len(rows) * max(map(len, rows))


def test_what_arrives_together_is_computed_together_and_answered_in_order() -> None:
    async def main() -> None:
        bench = Bench()
        answers = await asyncio.gather(bench.submit("bb", "a"), bench.submit("cc"))
        assert list(answers) == [["BB", "A"], ["CC"]]
        assert len(bench.recorder.runs) == 1

    run(main())


def test_an_idle_batcher_waits_for_no_company() -> None:
    async def main() -> None:
        bench = Bench()
        future = bench.submit("a")
        for _ in range(2):  # in one turn the loop looks for more, in the next it computes
            await asyncio.sleep(0)
        assert future.done()

    run(main())


def test_what_arrives_while_the_loop_looks_for_more_shares_the_run() -> None:
    async def main() -> None:
        bench = Bench()
        first = bench.submit("a")
        await asyncio.sleep(0)
        await asyncio.gather(first, bench.submit("b"))
        assert bench.recorder.runs == [["a", "b"]]

    run(main())


def test_a_trickle_of_arrivals_cannot_hold_a_run_back_beyond_its_budget() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=10)
        futures = []
        while not bench.recorder.runs:
            futures.append(bench.submit("x"))
            await asyncio.sleep(0)
        assert len(futures) == 10
        await asyncio.gather(*futures)

    run(main())


def test_no_run_is_larger_than_its_budget_with_padding() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=40)
        rows = ["x" * (1 + n % 9) for n in range(200)]
        assert await bench.submit(*rows) == [row.upper() for row in rows]
        assert max(map(padded, bench.recorder.runs)) <= 40

    run(main())


def test_a_history_over_the_budget_runs_alone() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=4)
        await bench.submit("long row", "ab", "cd")
        assert sorted(bench.recorder.runs) == [["ab", "cd"], ["long row"]]

    run(main())


def test_padding_never_costs_more_than_one_more_run() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=2000)
        await bench.submit(*("x" * (1 + n * n % 97) for n in range(300)))
        for rows in bench.recorder.runs:
            assert padded(rows) - sum(map(len, rows)) <= RUN_COST_TOKENS

    run(main())


def test_histories_of_several_requests_share_a_run_past_a_piece_that_has_no_room() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=40)
        await asyncio.gather(
            bench.submit("a" * 4), bench.submit(*["b" * 4] * 10), bench.submit("c" * 4)
        )
        assert bench.recorder.runs == [["a" * 4, "c" * 4], ["b" * 4] * 10]

    run(main())


def test_groups_never_share_a_run() -> None:
    async def main() -> None:
        bench = Bench()
        await asyncio.gather(bench.submit("a", group="one"), bench.submit("b", group="two"))
        assert bench.recorder.runs == [["a"], ["b"]]

    run(main())


def test_a_large_request_lets_a_small_one_through() -> None:
    async def main() -> None:
        bench = Bench(max_queue_tokens=100_000)
        large = bench.submit(*("x" * (10 + n // 10) for n in range(1000)))
        for _ in range(3):
            await asyncio.sleep(0)
        small = bench.submit("small")
        await asyncio.gather(large, small)
        assert bench.run_of("small") < len(bench.recorder.runs) / 5

    run(main())


def test_what_is_due_cannot_be_overtaken_for_ever() -> None:
    async def main() -> None:
        bench = Bench()
        old = bench.submit("a" * 90, "x" * 100)
        await asyncio.sleep(2 * STRETCH_S * 190)  # now both are due, before all that follows
        young = [bench.submit("small") for _ in range(500)]
        await asyncio.gather(old, *young)
        assert bench.run_of("x" * 100) < bench.run_of("small")

    run(main())


def test_io_gets_its_turn_between_runs() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=1)
        future = bench.submit(*"abcdef")
        turns = 0
        while not future.done():
            await asyncio.sleep(0)
            turns += 1
            assert len(bench.recorder.runs) <= turns

    run(main())


def test_runs_of_one_turn_are_prepared_together_before_the_first_is_computed() -> None:
    async def main() -> None:
        bench = Bench(max_batch_tokens=100)
        futures = [bench.submit("x" * length) for length in (2, 40, 80, 90)]
        await asyncio.sleep(0)  # one turn: there is no room to wait for more
        assert [len(row) for (row,) in bench.recorder.prepared] == [2, 40, 80]  # 100 are reached
        assert bench.recorder.prepared_before == [3, 3, 3]
        await asyncio.gather(*futures)

    run(main())


def test_cancelled_work_is_not_computed() -> None:
    async def main() -> None:
        bench = Bench()
        gone, stays = bench.submit("gone"), bench.submit("stay")
        gone.cancel()
        await stays
        assert bench.recorder.runs == [["stay"]]
        assert bench.batcher.backlog.tokens == 0

    run(main())


def test_expired_work_is_not_computed() -> None:
    async def main() -> None:
        bench = Bench()
        late, stays = bench.submit("late", deadline_s=0), bench.submit("stay")
        with pytest.raises(DeadlineExceeded, match="no result within 0 ms"):
            await late
        await stays
        assert bench.recorder.runs == [["stay"]]

    run(main())


def test_a_failing_request_does_not_fail_its_batch_mates() -> None:
    async def main() -> None:
        bench = Bench()
        good, bad, fine = bench.submit("good"), bench.submit("bad", "ok"), bench.submit("fine")
        assert [await good, await fine] == [["GOOD"], ["FINE"]]
        with pytest.raises(ValueError, match=r"bad|padded"):
            await bad

    run(main())


@pytest.mark.parametrize("group", ["g", "another"], ids=["same run", "another run"])
@pytest.mark.parametrize("row", ["bad", "cannot be padded"])
def test_what_fails_does_not_fail_the_others_of_its_turn(row: str, group: str) -> None:
    async def main() -> None:
        bench = Bench()
        bad, good = bench.submit(row), bench.submit("good", group=group)
        assert await good == ["GOOD"]
        with pytest.raises(ValueError, match=r"bad|padded"):
            await bad

    run(main())


def test_an_answer_that_cannot_be_finished_fails_alone() -> None:
    async def main() -> None:
        bench = Bench()
        bad, good = bench.submit("unfinished"), bench.submit("good")
        assert await good == ["GOOD"]
        with pytest.raises(KeyError):
            await bad

    run(main())


def test_every_run_tells_what_it_took() -> None:
    async def main() -> None:
        bench = Bench()
        await bench.submit("a", "bbb")
        (stats,) = bench.stats
        assert (stats.histories, stats.tokens, stats.computed_tokens) == (2, 4, 6)
        assert (stats.queued_tokens, stats.group) == (0, "g")

    run(main())


def test_a_full_queue_refuses_and_names_its_limit() -> None:
    async def main() -> None:
        bench = Bench(max_queue_tokens=10)
        first = bench.submit("x" * 8)
        with pytest.raises(Overloaded, match="8 tokens wait and this request has 3, limit 10"):
            bench.submit("abc")
        await first
        assert await bench.submit("abc") == ["ABC"]

    run(main())


def test_a_request_larger_than_the_queue_is_taken_when_nothing_waits() -> None:
    async def main() -> None:
        bench = Bench(max_queue_tokens=10)
        assert len(await bench.submit(*["abc"] * 20)) == 20

    run(main())


def test_a_request_without_histories_is_answered_at_once() -> None:
    async def main() -> None:
        assert await Bench().submit() == []

    run(main())


def test_one_loop_after_another() -> None:
    bench = Bench()

    async def leave() -> None:
        bench.submit("a")  # the loop ends before its turn comes

    async def answer() -> None:
        assert await bench.submit("b") == ["B"]

    run(leave())
    run(answer())
    run(answer())


def test_a_group_that_nobody_waits_for_is_freed() -> None:
    class Group:
        """A search holds what it has found so far."""

    async def main() -> weakref.ref[Group]:
        batcher: Batcher[str, str] = Batcher(
            lambda _group, inputs: lambda: inputs, max_batch_tokens=10, max_queue_tokens=10
        )
        group = Group()
        assert await batcher.submit(group, ["a"], [1], finish, deadline_s=10) == ["a"]
        batchers.append(batcher)
        return weakref.ref(group)

    batchers: list[Batcher[str, str]] = []
    freed = asyncio.run(main())
    gc.collect()
    assert freed() is None
