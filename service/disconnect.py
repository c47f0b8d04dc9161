"""Waiting for a result only as long as the client does."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from service.errors import ClientGone

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Result = TypeVar("Result")


async def unless_gone(receive: Receive, future: asyncio.Future[Result]) -> Result:
    """The future's result; cancels it when the client disconnects first.

    `receive` is the ASGI callable of a request whose body was read.

    Raises:
        ClientGone: the client disconnected.
    """
    watcher = asyncio.create_task(_watch(receive, future))
    try:
        return await future
    except asyncio.CancelledError:
        if watcher.done():  # it was the watcher who cancelled
            raise ClientGone("the client disconnected") from None
        raise
    finally:
        watcher.cancel()


async def _watch(receive: Receive, future: asyncio.Future[Any]) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    future.cancel()
