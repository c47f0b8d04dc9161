"""The client against a transport that answers as the test says."""

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import httpx
import numpy as np
import pytest
import stamina

import client as package
from client import AsyncClient, Client, ClientError, Limits
from client.wire import encode_calls

Handler = Callable[[httpx.Request], httpx.Response]
Path = Sequence[str | int]
Headers = dict[str, str] | None


@pytest.fixture(autouse=True)
def _no_pauses() -> Iterator[None]:
    """Retries follow each other at once; their number stays what the client asked for."""
    with stamina.set_testing(True, attempts=5, cap=True):
        yield


def answer(request: httpx.Request) -> httpx.Response:
    """What the service answers; a history's embedding is (number of clicks, 0.5)."""
    body = json.loads(request.content)
    users = [
        {
            "id": None,
            "used": len(history),
            "truncated": 0,
            "unknown": 0,
            "embedding": base64.b64encode(np.array([len(history), 0.5], "<f4").tobytes()).decode(),
        }
        for history in body["histories"]
    ]
    return httpx.Response(200, json={"model": "fake", "version": "1", "users": users})


def refusal(
    status: int, path: Path = (), code: str = "a code", headers: Headers = None
) -> httpx.Response:
    error = {"code": code, "message": "what is wrong", "path": path}
    return httpx.Response(status, json={"error": error}, headers=headers)


def client_of(handler: Handler, **options: Any) -> Client:
    return Client("http://service", transport=httpx.MockTransport(handler), **options)


class Answers:
    """Gives the answers in turn, the last one for ever; counts the requests."""

    def __init__(self, *answers: httpx.Response | Exception | Handler) -> None:
        self._answers = chain(answers, repeat(answers[-1]))
        self.count = 0

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.count += 1
        given = next(self._answers)
        if isinstance(given, Exception):
            raise given
        return given if isinstance(given, httpx.Response) else given(request)


def test_embeddings_come_as_one_float32_array_in_the_order_of_the_histories() -> None:
    with client_of(answer) as client:
        encoded = client.encode([["a", "b"], [], [7]])
    assert encoded.embeddings.dtype == np.float32
    assert encoded.embeddings.tolist() == [[2, 0.5], [0, 0.5], [1, 0.5]]
    assert [user.used for user in encoded.users] == [2, 0, 1]


def test_numpy_histories_travel_as_lists() -> None:
    with client_of(answer) as client:
        assert client.encode([np.array([1, 2, 3])]).users[0].used == 3


def test_many_histories_travel_in_several_requests() -> None:
    answers = Answers(answer)
    with client_of(answers, limits=Limits(histories=10)) as client:
        encoded = client.encode([["a"] * (number % 3) for number in range(25)])
    assert answers.count == 3
    assert encoded.embeddings[:, 0].tolist() == [number % 3 for number in range(25)]


def test_no_body_is_larger_than_the_limit_unless_one_history_is() -> None:
    histories = [["x" * 40] * (1 + number % 7) for number in range(50)] + [["y" * 900]]
    options: Any = {"model": "news", "attention": "none", "unknown_items": "token"}
    bodies = [call.content for call in encode_calls(histories, Limits(body_bytes=700), **options)]
    parts = [json.loads(body or b"")["histories"] for body in bodies]
    assert list(chain.from_iterable(parts)) == histories
    assert all(
        len(body or b"") <= 700 or part == [["y" * 900]]
        for body, part in zip(bodies, parts, strict=True)
    )


def test_no_histories_are_one_request_that_the_service_may_judge() -> None:
    with client_of(answer) as client:
        assert client.encode([]).embeddings.shape == (0, 0)


def test_the_path_of_an_error_counts_from_the_first_history_of_the_call() -> None:
    answers = Answers(answer, refusal(422, ["histories", 3, 0]))
    with (
        client_of(answers, limits=Limits(histories=10)) as client,
        pytest.raises(package.InvalidRequest) as caught,
    ):
        client.encode([["a"]] * 20)
    assert caught.value.path == ("histories", 13, 0)


def test_a_shared_candidate_in_an_errors_path_keeps_its_index() -> None:
    scored = {"id": None, "used": 1, "truncated": 0, "unknown": 0, "scores": [0.5] * 2}
    first = httpx.Response(200, json={"model": "fake", "version": "1", "users": [scored] * 10})
    answers = Answers(first, refusal(422, ["candidates", 1]))
    with (
        client_of(answers, limits=Limits(histories=10)) as client,
        pytest.raises(package.InvalidRequest) as caught,
    ):
        client.score([["a"]] * 20, ["a", "b"])
    assert caught.value.path == ("candidates", 1)


def test_requests_for_scores_stay_within_the_limit_of_scores() -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(len(body["histories"]) * len(body["candidates"]))
        scored = {"id": 1, "used": 1, "truncated": 0, "unknown": 0, "scores": [0.0, 1.0, 2.0]}
        users = [scored] * len(body["histories"])
        return httpx.Response(200, json={"model": "fake", "version": "1", "users": users})

    with client_of(handler, limits=Limits(scores=12)) as client:
        assert len(client.score([["a"]] * 10, ["a", "b", "c"])) == 10
    assert asked == [12, 12, 6]


def test_lists_of_candidates_and_histories_must_be_as_many() -> None:
    with client_of(answer) as client, pytest.raises(package.InvalidRequest, match="1 lists"):
        client.score([["a"], ["b"]], [["a"]])


def test_an_id_that_json_cannot_write_is_named_with_its_place() -> None:
    with client_of(answer) as client, pytest.raises(package.InvalidRequest) as caught:
        client.encode([["a"], [object()]])  # type: ignore[list-item]  # the mistake under test
    assert caught.value.path == ("histories", 1)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "model_not_found", package.ModelNotFound),
        (404, "not_found", package.UnexpectedAnswer),
        (413, "body_too_large", package.BodyTooLarge),
        (422, "invalid_request", package.InvalidRequest),
        (429, "overloaded", package.Overloaded),
        (500, "internal", package.ServerError),
        (503, "not_ready", package.NotReady),
        (504, "deadline_exceeded", package.DeadlineExceeded),
        (418, "teapot", package.UnexpectedAnswer),
    ],
)
def test_a_status_becomes_its_error(status: int, code: str, kind: type[ClientError]) -> None:
    with client_of(Answers(refusal(status, code=code))) as client:
        with pytest.raises(kind, match="what is wrong") as caught:
            client.encode([["a"]])
        assert type(caught.value) is kind


@pytest.mark.parametrize("passing", [refusal(429), refusal(503), refusal(504)])
def test_a_passing_trouble_is_tried_again(passing: httpx.Response) -> None:
    answers = Answers(passing, httpx.ConnectError("refused"), answer)
    with client_of(answers) as client:
        assert len(client.encode([["a"]])) == 1
    assert answers.count == 3


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_a_lasting_trouble_is_not_tried_again(status: int) -> None:
    answers = Answers(refusal(status))
    with client_of(answers) as client, pytest.raises(ClientError):
        client.encode([["a"]])
    assert answers.count == 1


def test_the_last_error_comes_through_when_the_attempts_are_used_up() -> None:
    answers = Answers(httpx.ConnectError("refused"))
    with (
        client_of(answers, attempts=3) as client,
        pytest.raises(package.ConnectionFailed, match="http://service: refused"),
    ):
        client.encode([["a"]])
    assert answers.count == 3


def test_the_pause_is_what_the_service_asks_for() -> None:
    with client_of(answer) as client:
        assert client._retry_when(package.Overloaded("later", retry_after=2.5)) == 2.5
        assert client._retry_when(package.Overloaded("later")) is True


def test_a_pause_beyond_the_time_for_retries_is_not_awaited() -> None:
    answers = Answers(refusal(429, headers={"Retry-After": "3600"}))
    with client_of(answers) as client, pytest.raises(package.Overloaded) as caught:
        client.encode([["a"]])
    assert (caught.value.retry_after, answers.count) == (3600, 1)


def test_no_answer_within_the_timeout_is_a_deadline_exceeded() -> None:
    answers = Answers(httpx.ReadTimeout("slow"))
    with (
        client_of(answers, timeout_s=0.5) as client,
        pytest.raises(package.DeadlineExceeded, match=r"no answer in 0\.5 s"),
    ):
        client.encode([["a"]])


@pytest.mark.parametrize("text", ["<html>", "{}", '{"model": "m", "version": "1", "users": []}'])
def test_an_answer_of_another_kind_is_said_to_be_unexpected(text: str) -> None:
    with (
        client_of(Answers(httpx.Response(200, text=text))) as client,
        pytest.raises(package.UnexpectedAnswer),
    ):
        client.encode([["a"]])


def test_an_error_page_of_a_proxy_is_quoted() -> None:
    with (
        client_of(Answers(httpx.Response(503, text="<h1>no backend</h1>"))) as client,
        pytest.raises(package.NotReady, match="no backend"),
    ):
        client.encode([["a"]])


def test_a_version_that_changes_between_two_parts_is_an_error() -> None:
    other = {"id": None, "used": 0, "truncated": 0, "unknown": 0, "embedding": "AAAAAAAAAAA="}
    second = httpx.Response(200, json={"model": "fake", "version": "2", "users": [other]})
    with (
        client_of(Answers(answer, second), limits=Limits(histories=1)) as client,
        pytest.raises(package.ModelChanged, match="version 1 to fake version 2"),
    ):
        client.encode([["a"], ["b"]])


def test_an_address_without_a_scheme_is_refused_at_once() -> None:
    with pytest.raises(package.ConnectionFailed, match="http://"):
        Client("localhost:8000")


def test_ready_is_false_while_nothing_answers() -> None:
    with client_of(Answers(httpx.ConnectError("refused"))) as client:
        assert not client.ready()


def test_waiting_ends_when_the_service_becomes_ready() -> None:
    answers = Answers(httpx.ConnectError("refused"), refusal(503), httpx.Response(200, text="{}"))
    with client_of(answers) as client:
        client.wait_until_ready(timeout_s=60)
    assert answers.count == 3


def test_waiting_in_vain_tells_the_last_reason() -> None:
    with (
        client_of(Answers(refusal(503))) as client,
        pytest.raises(package.NotReady, match="within 0 s: what is wrong"),
    ):
        client.wait_until_ready(timeout_s=0)


async def _awaited(answers: Handler) -> tuple[list[list[float]], bool]:
    async with AsyncClient("http://service", transport=httpx.MockTransport(answers)) as client:
        encoded = await client.encode([["a"], []])
        return encoded.embeddings.tolist(), await client.ready()


def test_the_awaiting_client_retries_and_reads_like_the_blocking_one() -> None:
    answers = Answers(refusal(429), answer, refusal(503))
    assert asyncio.run(_awaited(answers)) == ([[1, 0.5], [0, 0.5]], False)
    assert answers.count == 3


def test_importing_the_client_brings_neither_torch_nor_onnxruntime_nor_fastapi() -> None:
    script = "import client, sys; print({'torch', 'onnxruntime', 'fastapi'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert done.stdout.strip() == b"set()"
