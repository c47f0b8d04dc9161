"""A worker: one process that serves on its own listening socket.

On a shared socket, the worker that wakes up first takes all waiting connections: of 32 connections
at once, one of two workers had 29 or more in 9 of 10 trials. Linux spreads connections over sockets
that are bound to the same port with SO_REUSEPORT (in the same test: 22 at most).
"""

import logging
import os
import shutil
import signal
import socket
import threading
import time
from multiprocessing import connection, parent_process
from typing import Any

import uvicorn

from service.app import create_app
from service.board import Seat
from service.errors import CannotListen
from service.http.connection import limited
from service.http.ending import Server
from service.log_format import log_config
from service.settings import Settings

GRACE_S = 5.0  # added to the deadline of requests, before a worker is killed

logger = logging.getLogger("service")


def hold_port(host: str, port: int) -> socket.socket:
    """A bound socket that keeps the port, but does not listen.

    Raises:
        CannotListen: the port is in use, or the host has no such address.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        held = socket.socket(family)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(
            address
        )  # without SO_REUSEPORT, so that a port used by another program is refused
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"cannot listen on {host}, port {port}: {reason.lower()}") from None
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def work(settings: Settings, seat: Seat, family: int, address: Any) -> None:
    """Serves until a signal to end, or until its supervisor has ended."""
    for number in (signal.SIGINT, signal.SIGHUP):  # the supervisor says when to end
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(settings, seat), daemon=True).start()
    own = socket.socket(family)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(address)
    config = uvicorn.Config(
        create_app(settings, seat),
        log_level=settings.log_level,
        loop="uvloop",
        http=limited(settings),
        ws="none",
        log_config=log_config(settings.log_level, settings.log_format),
        access_log=False,
        server_header=False,
        proxy_headers=False,  # nothing uses the client's address, and each request would pay for it
        timeout_graceful_shutdown=max(1, -(-settings.deadline_ms // 1000)),
    )
    Server(config).run([own])


def grace_s(settings: Settings) -> float:
    """Seconds that a worker may take to end."""
    return settings.deadline_ms / 1000 + settings.drain_seconds + GRACE_S


def _end_with_parent(settings: Settings, seat: Seat) -> None:
    """Ends this process when its supervisor has ended, because it would hold the port."""
    parent = parent_process()
    if parent is None:
        return
    connection.wait([parent.sentinel])
    logger.error("the supervisor has ended: ending too")
    if seat.folder is not None:
        shutil.rmtree(seat.folder, ignore_errors=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace_s(settings))
    os._exit(1)  # the event loop hangs
