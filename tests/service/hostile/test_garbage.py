"""What a request leaves is freed when its connection ends, without the garbage collector.

A circle of references would hold the request's bytes until the collector runs, which is seldom in
a service: 13,000 hostile requests took 180 MB that way.
"""

import gc
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from persona.contract import PersonaError
from service.http.connection import Connection
from tests.service.hostile.cases import GET, LIMITS, VALID, Case, all_cases
from tests.service.hostile.wire import Wire, head, request
from tests.serving import serving, wait_until

MANY = b'{"unknown_items": "error", "histories": [' + b",".join([b'["none"]'] * 65) + b"]}"
OFFER = head(GET, "Host: here", "Connection: Upgrade", "Upgrade: h2c")
OTHERS = [
    Case("answered", request(VALID), 200),
    Case("refused while it is read in turns", request(MANY), 422),
    Case("of a version that is none", request(VALID[:-1] + b', "version": "7"}'), 404),
    Case("an offer of another protocol, and then no HTTP", OFFER + b"nothing\r\n\r\n", 200),
    Case("gone", request(VALID)[:-1], 0),
]


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, **LIMITS) as client:
        yield client


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.parametrize("case", [*OTHERS, *all_cases()[::8]], ids=lambda case: case.name)
@pytest.mark.usefixtures("no_collector")
def test_nothing_of_a_request_waits_for_the_collector(client: httpx.Client, case: Case) -> None:
    before = left()
    with closing(Wire(client.base_url.port or 0)) as wire:
        wire.send(case.raw)
        if case.half_close:
            wire.half_close()
        if case.status:
            assert wire.reply().status == case.status
    wait_until(lambda: left() <= before)


def left() -> int:
    """Connections, requests and errors in memory."""
    kinds = (Connection, RequestResponseCycle, PersonaError)
    return sum(isinstance(one, kinds) for one in gc.get_objects())
