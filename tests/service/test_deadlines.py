"""A request's own deadline, and what overload is answered with."""

import asyncio
from pathlib import Path

import httpx
import pytest

from persona.contract import (
    ITEM_ID,
    DeadlineExceeded,
    InvalidRequest,
    Overloaded,
    Query,
    Result,
    Results,
)
from service.lifecycle import Service
from service.protocols.exchange import Deadline
from service.protocols.native.errors import answer_to
from service.settings import Settings
from tests.serving import serving

HISTORIES = {"histories": [["item 1"]]}
LARGE = {"histories": [["item 1"] * 12] * 1000}


def post(client: httpx.Client, body: object, timeout_ms: str) -> httpx.Response:
    return client.post("/v1/encode", json=body, headers={"x-request-timeout-ms": timeout_ms})


def test_a_request_may_want_its_answer_sooner(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts, max_batch_tokens=1) as client:
        late = post(client, LARGE, "1")
        assert post(client, HISTORIES, "30000").status_code == 200
    assert late.status_code == 504
    assert late.json()["error"]["message"] == "no result within 1 ms"


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "", "1" * 400])
def test_a_deadline_that_is_no_number_is_refused(tiny_artifacts: Path, value: str) -> None:
    with serving(tiny_artifacts) as client:
        refused = post(client, HISTORIES, value)
    assert refused.status_code == 422
    assert refused.json()["error"]["message"].startswith("x-request-timeout-ms: expected a whole")
    assert len(refused.content) < 300


def test_no_request_may_wait_longer_than_the_settings_allow() -> None:
    settings = Settings(deadline_ms=500)
    assert Deadline([(b"x-request-timeout-ms", b"9000")], settings).ms == 500
    assert Deadline([(b"x-request-timeout-ms", b"9")], settings).ms == 9
    assert Deadline([], settings).ms == 500


def test_what_is_past_its_deadline_is_not_submitted() -> None:
    deadline = Deadline([(b"x-request-timeout-ms", b"1")], Settings())
    deadline.ms = 0
    deadline.start()
    with pytest.raises(DeadlineExceeded):
        deadline.left_s()


def test_a_deadline_of_many_digits_is_not_turned_into_a_number() -> None:
    with pytest.raises(InvalidRequest):
        Deadline([(b"x-request-timeout-ms", b"1" * 10_000)], Settings())


@pytest.mark.parametrize(("seconds", "header"), [(0.1, b"1"), (2.0, b"2"), (2.1, b"3")])
def test_overload_says_when_there_will_be_room(seconds: float, header: bytes) -> None:
    headers = dict(answer_to(Overloaded("full", retry_after_s=seconds)).headers)
    assert headers[b"retry-after"] == header
    assert headers[b"retry-after-ms"] == b"%d" % (seconds * 1000)


def test_what_would_be_late_by_the_size_of_its_body_is_refused_unread(tiny_artifacts: Path) -> None:
    service = Service(Settings(artifacts=tiny_artifacts))
    seen = Results("tiny", "1", [Result(["item 1"] * 9, 0, 0)] * 1000)  # 10,000 tokens

    async def main() -> None:
        await service.load()
        waiting = service.engine().submit(Query({ITEM_ID: [["item 1"] * 9]}), 60)
        service.refuse_late(0.01, 100_000)  # nobody knows yet what such bodies hold
        service.note_size(100_000, seen)
        service.refuse_late(0.01, 100)
        with pytest.raises(Overloaded):
            service.refuse_late(0.01, 100_000)
        await waiting
        service.refuse_late(0.01, 100_000)

    asyncio.run(main())
