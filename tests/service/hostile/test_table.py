"""Every hostile input of the table is refused in the documented shape, and the server lives on."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.service.hostile.cases import LIMITS, VALID, Case, all_cases
from tests.service.hostile.wire import first_reply
from tests.serving import serving

CASES = all_cases()


@pytest.fixture(scope="module")
def client(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts, **LIMITS) as client:
        yield client


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_input_is_refused_and_the_server_lives_on(
    client: httpx.Client, caplog: pytest.LogCaptureFixture, case: Case
) -> None:
    reply = first_reply(client.base_url.port or 0, [case.raw], half_close=case.half_close)
    assert reply.status == case.status
    if reply.status:
        assert reply.headers["content-type"] == "application/json"
        assert len(reply.error["message"]) < 300
    assert client.post("/v1/encode", content=VALID).status_code == 200
    assert not caplog.records


def test_the_table_has_at_least_250_inputs_and_none_twice() -> None:
    assert len(CASES) >= 250
    assert max(Counter(case.name for case in CASES).values()) == 1
    assert max(Counter((case.raw, case.half_close) for case in CASES).values()) == 1
