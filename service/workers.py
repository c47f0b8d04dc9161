"""Runs the service: one process a core, each with a listening socket of its own at one port.

On one socket that all workers share, whoever wakes up first takes what there is: of 32 connections
at once, one worker of two had 29 or more in 9 of 10 trials. Linux spreads connections over sockets
that are bound to the same port with SO_REUSEPORT (there: 22 at most).
"""

import logging
import os
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import connection, get_context
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import uvicorn

from service.app import create_app
from service.errors import CannotListen, NoStateFolder
from service.http.connection import limited
from service.log_format import log_config
from service.metrics import MULTIPROCESS_FOLDER, forget_worker
from service.settings import Settings
from service.versions.choices import change_choices
from service.versions.watching import clear

RESTART_AFTER_S = 1.0  # so that a worker that cannot start does not keep a core busy
LOOK_S = 0.5
GRACE_S = 5.0  # beyond the deadline of requests, before a worker is killed

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
        held.bind(address)  # without SO_REUSEPORT: a port that another program uses is refused
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotListen(f"cannot listen on {host}, port {port}: {reason.lower()}") from None
    held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    return held


def run(settings: Settings, workers: int, held: socket.socket) -> None:
    """Serves until the process is asked to end."""
    with _shared_metrics(workers), _shared_state(settings) as shared:
        if workers == 1:
            with suppress(KeyboardInterrupt):  # it comes again when the server has ended
                work(shared, held.family, held.getsockname())
        else:
            _Supervisor(shared, workers, held).run()


def work(settings: Settings, family: int, address: Any) -> None:
    """One worker: serves on a socket of its own at the address."""
    own = socket.socket(family)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(address)
    config = uvicorn.Config(
        create_app(settings),
        log_level=settings.log_level,
        loop="uvloop",
        http=limited(settings),
        ws="none",
        log_config=log_config(settings.log_level, settings.log_format),
        access_log=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        server_header=False,
        proxy_headers=False,  # nobody asks who calls, and each request would pay for it
        timeout_graceful_shutdown=max(1, -(-settings.deadline_ms // 1000)),
    )
    uvicorn.Server(config).run([own])


class _Supervisor:
    """Starts the workers, starts those again that died, and ends all when asked to."""

    def __init__(self, settings: Settings, workers: int, held: socket.socket) -> None:
        self._settings = settings
        self._arguments = (settings, held.family, held.getsockname())
        self._ending = False
        self._workers = [self._start() for _ in range(workers)]

    def run(self) -> None:
        """Returns when all workers have ended."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._end)
        while not self._ending:
            connection.wait([worker.sentinel for worker in self._workers], LOOK_S)
            self._replace_dead()
        grace = self._settings.deadline_ms / 1000 + self._settings.drain_seconds + GRACE_S
        last = time.monotonic() + grace
        for worker in self._workers:
            worker.join(max(0.0, last - time.monotonic()))
            if worker.is_alive():
                logger.error("worker %d did not end within %g s: killed", worker.pid, grace)
                worker.kill()

    def _start(self) -> SpawnProcess:
        worker = get_context("spawn").Process(target=_work_quietly, args=self._arguments)
        worker.start()
        return worker

    def _replace_dead(self) -> None:
        for number, worker in enumerate(self._workers):
            if worker.is_alive() or self._ending:
                continue
            logger.error(
                "worker %d ended with status %s: starting another", worker.pid, worker.exitcode
            )
            forget_worker(worker.pid)
            time.sleep(RESTART_AFTER_S)
            self._workers[number] = self._start()

    def _end(self, *_: object) -> None:
        self._ending = True
        for worker in self._workers:
            if worker.is_alive():
                worker.terminate()


def _work_quietly(settings: Settings, family: int, address: Any) -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the supervisor takes it for all
    with suppress(KeyboardInterrupt):
        work(settings, family, address)


@contextmanager
def _shared_metrics(workers: int) -> Iterator[None]:
    """A folder in memory where the workers add up their metrics; one worker needs none."""
    if workers == 1:
        yield
        return
    memory = Path("/dev/shm")  # noqa: S108  # there where /tmp is read-only; mkdtemp names safely
    parent = memory if os.access(memory, os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="persona-metrics-", dir=parent)
    os.environ[MULTIPROCESS_FOLDER] = folder
    try:
        yield
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _shared_state(settings: Settings) -> Iterator[Settings]:
    """A folder for what workers must agree on; SIGHUP makes them look at all artifacts anew."""
    given = settings.state_folder
    try:
        folder = given or Path(tempfile.mkdtemp(prefix="persona-state-"))
        clear(folder)
    except OSError as error:
        raise NoStateFolder(f"PERSONA_STATE_FOLDER: cannot write there: {error}") from None

    def look(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not wait for the first's lock
        change_choices(folder)
        signal.signal(number, look)

    signal.signal(signal.SIGHUP, look)
    try:
        yield settings.model_copy(update={"state_folder": folder})
    finally:
        if given is None:
            shutil.rmtree(folder, ignore_errors=True)
