"""A listening socket for each worker, so that each gets its share of the connections.

On one socket that all workers share, whoever wakes up first takes what there is: of 32
connections that came at once, one worker of two had all in 9 of 10 trials. Linux spreads them
over sockets that are bound to the same port with SO_REUSEPORT (there: 12 to 20 at worst).
"""

import socket
import sys
from collections.abc import Callable
from typing import Any

Bound = Callable[[int, Any], socket.socket]


class WorkerSocket(socket.socket):
    """A bound socket that keeps the port; a process that it is sent to gets one of its own.

    It does not listen itself, or connections would wait here in vain.
    """

    def __reduce__(self) -> tuple[Bound, tuple[int, Any]]:
        return _bind, (self.family, self.getsockname())


def a_socket_for_each(bound: socket.socket) -> socket.socket:
    """Turns a bound socket into one that may be sent to many workers; elsewhere they share it.

    The socket was bound without SO_REUSEPORT: so a port that is taken has been refused.
    """
    if sys.platform != "linux":  # pragma: no cover  # the others do not spread connections
        return bound
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return WorkerSocket(fileno=bound.detach())


def _bind(family: int, address: Any) -> socket.socket:
    own = socket.socket(family)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(address)
    return own
