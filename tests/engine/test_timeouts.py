"""One timer for all that may take too long."""

import asyncio
from functools import partial

from persona.engine.timeouts import Timeouts


def test_what_is_late_is_acted_upon_once_and_in_order() -> None:
    async def main() -> None:
        timeouts, acted = Timeouts(), list[str]()
        future = asyncio.get_running_loop().create_future()
        timeouts.watch(future, 0, lambda: acted.append("sooner"))
        timeouts.watch(future, 0.05, lambda: acted.append("later"))
        timeouts.watch(future, 0.1, lambda: future.set_result(None))
        await future
        assert acted == ["sooner", "later"]

    asyncio.run(main())


def test_what_is_done_in_time_is_left_alone() -> None:
    async def main() -> None:
        timeouts, acted = Timeouts(), list[str]()
        loop = asyncio.get_running_loop()
        done, last = loop.create_future(), loop.create_future()
        timeouts.watch(done, 0, lambda: acted.append("done"))
        timeouts.watch(last, 0.05, lambda: last.set_result(None))
        done.set_result(None)
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
