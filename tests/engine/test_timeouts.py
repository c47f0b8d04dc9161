"""One timer for all that may take too long."""

import asyncio
from functools import partial

from persona.engine.timeouts import Timeouts


def test_what_is_late_is_acted_upon_once_and_in_order() -> None:
    async def main() -> None:
        timeouts, acted, loop = Timeouts(), list[str](), asyncio.get_running_loop()
        sooner, later, last = loop.create_future(), loop.create_future(), loop.create_future()
        timeouts.watch(last, 0.1, lambda: last.set_result(None))
        timeouts.watch(later, 0.05, lambda: acted.append("later"))
        timeouts.watch(sooner, 0, lambda: acted.append("sooner"))
        await last
        assert acted == ["sooner", "later"]

    asyncio.run(main())


def test_what_is_done_in_time_or_forgotten_is_left_alone() -> None:
    async def main() -> None:
        timeouts, acted = Timeouts(), list[str]()
        loop = asyncio.get_running_loop()
        done, forgotten, last = (loop.create_future() for _ in range(3))
        timeouts.watch(done, 0, lambda: acted.append("done"))
        timeouts.watch(forgotten, 0, lambda: acted.append("forgotten"))
        timeouts.watch(last, 0.05, lambda: last.set_result(None))
        done.set_result(None)
        timeouts.forget(forgotten)
        await last
        assert acted == []

    asyncio.run(main())


def test_after_a_rest_it_watches_again() -> None:
    async def main() -> None:
        timeouts = Timeouts()
        for _ in range(2):
            future = asyncio.get_running_loop().create_future()
            timeouts.watch(future, 0, partial(future.set_result, None))
            await future
            await asyncio.sleep(0)

    asyncio.run(main())
