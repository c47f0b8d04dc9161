"""Waiting for a result only as long as the client does."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeVar

from service.errors import ClientGone

# Most results come sooner, and a watcher costs a tenth of a small request.
PATIENCE_S = 0.02

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Result = TypeVar("Result")


async def unless_gone(receive: Receive, future: asyncio.Future[Result]) -> Result:
    """The future's result; cancels it when the client disconnects first.

    `receive` is the ASGI callable of a request whose body was read.

    Raises:
        ClientGone: the client disconnected.
    """
    try:
        await asyncio.wait((future,), timeout=PATIENCE_S)
        if not future.done():
            await _watch(receive, future)
    except asyncio.CancelledError:
        future.cancel()
        raise
    if future.cancelled():
        raise ClientGone("the client disconnected")
    return future.result()


async def _watch(receive: Receive, future: asyncio.Future[Result]) -> None:
    gone = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((future, gone), return_when=asyncio.FIRST_COMPLETED)
        if not future.done():
            future.cancel()
    finally:
        gone.cancel()


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
