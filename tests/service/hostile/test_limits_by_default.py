"""What hurt most, against `persona serve` with its default limits: memory, and life meanwhile."""

import resource
from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.service.hostile.cases import POST, VALID
from tests.service.hostile.wire import Wire, first_reply, head, request
from tests.service.processes import process
from tests.serving import status_of, wait_until

SPARE_DESCRIPTORS = 100
KEYS = b",".join(b'"%d":1' % number for number in range(600_000))
HUGE = {
    "unknown keys of a history": b'{"histories":[{' + KEYS + b"}]}",
    "unknown keys": b'{"histories":[],' + KEYS + b"}",
    "named histories": b'{"histories":[' + b'{"items":[]},' * 640_000 + b"[]]}",
    "empty histories": b'{"histories":[' + b"[]," * 2_790_000 + b"[]]}",
    "clicks": b'{"histories":[[' + b"1," * 4_000_000 + b"1]]}",
    "strings": b'{"histories":[[' + b'"",' * 2_700_000 + b'""]]}',
    "13 MB": b'{"histories":[{' + KEYS * 2 + b"}]}",
}


@dataclass(frozen=True)
class Server:
    """A service of one worker in a process of its own."""

    url: str
    process_id: int

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self.url.rpartition(":")[2])

    def peak_megabytes(self) -> float:
        """The most memory that it has had since the last call."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        peak = int(status.partition("VmHWM:")[2].split()[0]) / 1024
        Path(f"/proc/{self.process_id}/clear_refs").write_text("5")  # begins again
        return peak

    def answers(self) -> bool:
        """Whether a request is computed."""
        return httpx.post(f"{self.url}/v1/encode", content=VALID).status_code == 200


@pytest.fixture(scope="module")
def server(tiny_artifacts: Path) -> Iterator[Server]:
    with process("--artifacts", str(tiny_artifacts), "--workers", "1") as (running, url):
        wait_until(lambda: status_of(f"{url}/health/ready") == 200)
        yield Server(url, running.pid)


@pytest.mark.parametrize("name", HUGE)
def test_a_huge_body_is_refused_before_anything_is_built(server: Server, name: str) -> None:
    server.peak_megabytes()
    before = server.peak_megabytes()
    reply = first_reply(server.port, [request(HUGE[name])])
    assert reply.status == (413 if len(HUGE[name]) > 8 * 2**20 else 422)
    assert server.peak_megabytes() - before < 60  # the body itself, in pieces and joined
    assert server.answers()


def test_fifty_stalled_bodies_hold_no_more_than_the_limit(server: Server) -> None:
    server.peak_megabytes()
    before = server.peak_megabytes()
    stalled = request(b" " * 8_000_000)[:-1]
    with ExitStack() as stack:
        for _ in range(50):
            stack.enter_context(closing(Wire(server.port))).send(stalled)
        assert server.answers()
        assert server.peak_megabytes() - before < 150  # all of them would be 400


@pytest.mark.parametrize("line", [b"X: 1\r\n", b"X" * 1_000, b"1\r\n \r\n"])
def test_what_has_no_end_holds_little(server: Server, line: bytes) -> None:
    start = head(POST, "Host: here", "Transfer-Encoding: chunked")
    if not line.startswith(b"1"):
        start = start[:-2]
    server.peak_megabytes()
    before = server.peak_megabytes()
    assert first_reply(server.port, [start, *[line * 1_000] * 4_000]).status in {0, 413, 431}
    assert server.peak_megabytes() - before < 60
    assert server.answers()


@pytest.mark.slow
def test_ten_thousand_idle_connections_lock_nobody_out(server: Server) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    number = 10_000 if hard == resource.RLIM_INFINITY else min(10_000, hard - SPARE_DESCRIPTORS)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, number + SPARE_DESCRIPTORS), hard))
    try:
        with ExitStack() as stack:
            for opened in range(number):
                stack.enter_context(closing(Wire(server.port)))
                assert opened % 1_000 or server.answers()
            assert server.answers()
        assert server.answers()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
