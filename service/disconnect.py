"""Waiting for a result only as long as the client does."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from service.errors import ClientGone
from service.timeouts import Timeouts

# Most results come sooner, and a watcher costs a tenth of a small request.
PATIENCE_S = 0.02

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Result = TypeVar("Result")


async def unless_gone(
    receive: Receive, future: asyncio.Future[Result], timeouts: Timeouts
) -> Result:
    """The future's result; cancels it when the client disconnects first.

    `receive` is the ASGI callable of a request whose body was read.

    Raises:
        ClientGone: the client disconnected.
    """
    watch: list[asyncio.Task[None]] = []
    timeouts.watch(
        future, PATIENCE_S, lambda: watch.append(asyncio.create_task(_watch(receive, future)))
    )
    try:
        return await future
    except asyncio.CancelledError:
        if watch and watch[0].done():  # it was the watcher who cancelled
            raise ClientGone("the client disconnected") from None
        raise
    finally:
        for task in watch:
            task.cancel()


async def _watch(receive: Receive, future: asyncio.Future[Result]) -> None:
    await _disconnected(receive)
    future.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
