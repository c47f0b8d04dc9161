"""The watch over connections looks once a tick, however many come and go."""

import asyncio
from collections.abc import Hashable

from service.http.watch import Phase, Watch
from service.settings import Settings


class Visitor:
    """A connection that asks for nothing."""

    def __init__(self) -> None:
        self.ended: list[Phase] = []
        self.looks = 0
        self.looked, self.was_ended = asyncio.Event(), asyncio.Event()

    def phase(self) -> tuple[Phase, Hashable]:
        self.looks += 1
        self.looked.set()
        return "head", None

    def unread_bytes(self) -> int:
        return 0

    def end(self, phase: Phase) -> None:
        self.ended.append(phase)
        self.was_ended.set()

    def abort(self) -> None:
        raise AssertionError("it was within its limits")


def test_connections_that_come_and_go_do_not_add_looks() -> None:
    async def looks() -> int:
        watch = Watch(Settings(closing_seconds=0.2))  # a look every 50 ms
        for _ in range(100):
            passing = Visitor()
            watch.admit(passing)
            watch.forget(passing)
        stays = Visitor()
        watch.admit(stays)
        await stays.looked.wait()
        return stays.looks

    assert asyncio.run(looks()) == 1


def test_a_connection_that_asks_for_nothing_is_ended_after_its_time() -> None:
    async def ended() -> list[Phase]:
        watch, visitor = Watch(Settings(header_seconds=0.04)), Visitor()
        watch.admit(visitor)
        await visitor.was_ended.wait()
        watch.forget(visitor)
        return visitor.ended

    assert asyncio.run(ended()) == ["head"]
