"""Uvicorn's server, changed so that it loses no request on an open connection when it ends."""

import asyncio
import socket
import struct
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial

import uvicorn

from service.http.connection import Connection

HEARD_OUT_S = 2.0  # a client that has not sent a complete head by then has no request to lose
STEP_S = 0.02
SO_ATTACH_FILTER = 26  # of Linux
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # one instruction for the kernel: return 0 bytes


class Server(uvicorn.Server):
    """Ends in three steps: accepts waiting connections, reads their requests, answers all."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Uvicorn's own shutdown, but connections waiting to be accepted are not reset."""
        for listening in sockets or ():
            _turn_away(listening)
        waiting = [one for listening in sockets or () for one in _waiting(listening)]
        for server in self.servers:
            server.close()
        await self._let_in(waiting)
        for _ in range(round(HEARD_OUT_S / STEP_S)):
            await asyncio.sleep(STEP_S)  # to read what has arrived
            if not self._has_more_to_hear():
                break
        await super().shutdown(sockets)

    async def _let_in(self, accepted: Iterable[socket.socket]) -> None:
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class
        protocol = partial(
            make,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        for one in accepted:
            with suppress(OSError):  # it has gone again
                await asyncio.get_running_loop().connect_accepted_socket(protocol, one)

    def _has_more_to_hear(self) -> bool:
        connections = self.server_state.connections
        return any(one.phase()[0] == "head" for one in connections if isinstance(one, Connection))


def _turn_away(listening: socket.socket) -> None:
    """Drops the first packet of further connections; clients resend it a second later.

    A connection between the last `accept` and `close` would be established and then reset.
    """
    program = array("B", DROP_ALL)
    filters = struct.pack("HP", 1, program.buffer_info()[0])
    with suppress(OSError):  # a kernel without filters
        listening.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)


def _waiting(listening: socket.socket) -> list[socket.socket]:
    """Connections that are established but not accepted yet; closing would reset them."""
    waiting = []
    listening.setblocking(False)
    with suppress(BlockingIOError):
        while True:
            waiting.append(listening.accept()[0])
    return waiting
