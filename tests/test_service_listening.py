"""A socket for each worker, at one address."""

import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.reduction import ForkingPickler
from pathlib import Path

import pytest

from service.listening import a_socket_for_each
from tests.serving import status_of, wait_until
from tests.test_service_process import process

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere workers share a socket")


@pytest.fixture
def kept() -> Iterator[socket.socket]:
    """What a supervisor keeps, at a port that the system chose."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    with a_socket_for_each(bound) as kept:
        yield kept


def sent(kept: socket.socket) -> socket.socket:
    own: socket.socket = ForkingPickler.loads(ForkingPickler.dumps(kept))
    own.listen()
    own.settimeout(0.2)
    return own


def accepted(listening: socket.socket) -> int:
    number = 0
    while True:
        try:
            listening.accept()[0].close()
        except TimeoutError:
            return number
        number += 1


def test_connections_that_come_at_once_are_spread_and_none_waits_in_vain(
    kept: socket.socket,
) -> None:
    with ExitStack() as stack:
        workers = [stack.enter_context(sent(kept)) for _ in range(2)]
        for _ in range(64):
            stack.enter_context(socket.create_connection(kept.getsockname()))
        shares = [accepted(worker) for worker in workers]
    assert sum(shares) == 64
    assert min(shares) > 8  # fewer than once in 10^9 times


def test_the_port_stays_taken_while_no_worker_listens(kept: socket.socket) -> None:
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(kept.getsockname())


def test_a_port_that_is_taken_is_named(tiny_artifacts: Path) -> None:
    options = ("--artifacts", str(tiny_artifacts), "--workers", "2")
    with process(*options) as (_, url):
        wait_until(lambda: status_of(f"{url}/health/ready") == 200)
        with process(*options, "--port", url.rpartition(":")[2]) as (second, _):
            _, log = second.communicate(timeout=30)
    assert "Address already in use" in log
    assert second.returncode != 0
