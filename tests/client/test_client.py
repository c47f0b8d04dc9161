"""The client against a transport that answers as the test says."""

import asyncio
import base64
import gzip
import json
import re
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import Any

import httpx
import numpy as np
import pytest
import stamina

from persona.client import (
    AsyncClient,
    Client,
    ConnectionFailed,
    Limits,
    ModelChanged,
    ServerError,
    UnexpectedAnswer,
)
from persona.client.requests import encode_calls
from persona.client.wire import Call, read
from persona.coded import CodedHistories
from persona.contract import (
    DeadlineExceeded,
    InvalidRequest,
    ItemId,
    ModelNotFound,
    NotReady,
    Overloaded,
    PersonaError,
    RequestTooLarge,
)

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


def scored(*scores: float | None, attention: Any = None, histories: int = 1) -> httpx.Response:
    """What the service answers to a request for the scores of some histories."""
    user = {"id": None, "used": 1, "truncated": 0, "unknown": 0, "scores": scores}
    user |= {} if attention is None else {"attention": attention}
    return httpx.Response(200, json={"model": "fake", "version": "1", "users": [user] * histories})


def refusal(
    status: int,
    path: Path = (),
    code: str = "a code",
    headers: Headers = None,
    message: str = "what is wrong",
) -> httpx.Response:
    error = {"code": code, "message": message, "path": path}
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


def test_only_the_first_request_of_a_job_may_be_taken_for_its_users_own() -> None:
    bodies = [json.loads(call.content or b"") for call in encode_calls(
        [[1], [2], [3]], Limits(histories=1), attention="none"
    )]  # fmt: skip
    assert ["routing_key" in body for body in bodies] == [False, True, True]
    assert bodies[1]["routing_key"] is None


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


@pytest.mark.parametrize(
    "limits", [Limits(), Limits(histories=2), Limits(items=3), Limits(body_bytes=60)]
)
@pytest.mark.parametrize("histories", [[["a", "b"], [], ["c"], [7, 8]], [], [[]]])
def test_histories_as_arrays_are_sent_as_lists_are(
    histories: list[list[ItemId]], limits: Limits
) -> None:
    as_lists, as_arrays = (
        [call.content for call in encode_calls(given, limits, attention="none")]
        for given in (histories, CodedHistories.of(histories))
    )
    assert as_arrays == as_lists


def test_an_id_that_cannot_be_written_is_named_in_arrays_too() -> None:
    broken = CodedHistories.of([["a"], ["b", "\ud800"]])
    with pytest.raises(InvalidRequest, match=r"histories\[1\]") as refused:
        list(encode_calls(broken, Limits(), attention="none"))
    assert refused.value.history == 1


def test_no_request_has_more_items_than_the_limit_unless_one_history_has() -> None:
    histories = [["x"] * (1 + number % 7) for number in range(50)] + [["y"] * 90]
    bodies = [call.content for call in encode_calls(histories, Limits(items=20), attention="none")]
    parts = [json.loads(body or b"")["histories"] for body in bodies]
    assert list(chain.from_iterable(parts)) == histories
    assert max(sum(map(len, part)) for part in parts if len(part) > 1) <= 20


def test_no_histories_are_one_request_that_the_service_may_judge() -> None:
    with client_of(answer) as client:
        assert client.encode([]).embeddings.shape == (0, 0)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        (["histories", 3, 5], (3, 5, None)),
        (["histories", 3, "items", 5], (3, 5, None)),
        (["histories", 3], (3, None, None)),
        (["candidates", 2], (None, None, 2)),
        (["attention"], (None, None, None)),
        ([], (None, None, None)),
    ],
)
def test_an_invalid_request_names_history_click_and_candidate(path: Path, place: Any) -> None:
    with (
        client_of(Answers(refusal(422, path))) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.score([["a"]] * 4, ["a", "b", "c"])
    assert (caught.value.history, caught.value.click, caught.value.candidate) == place


def test_a_candidate_of_its_own_list_is_named_with_its_history() -> None:
    answers = Answers(scored(0.5, histories=10), refusal(422, ["candidates", 3, 1]))
    with (
        client_of(answers, limits=Limits(histories=10)) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.score([["a"]] * 20, [["a"]] * 20)
    assert (caught.value.history, caught.value.candidate) == (13, 1)


def test_an_error_counts_histories_over_the_whole_call() -> None:
    said = "history 3, item 0: unknown item 'history 3'"
    answers = Answers(answer, refusal(422, ["histories", 3, 0], message=said))
    with (
        client_of(answers, limits=Limits(histories=10)) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.encode([["a"]] * 20)
    assert caught.value.history == 13
    assert str(caught.value) == "history 13, item 0: unknown item 'history 3'"


def test_a_shared_candidate_in_a_later_part_keeps_its_index() -> None:
    answers = Answers(scored(0.5, 0.5, histories=10), refusal(422, ["candidates", 1]))
    with (
        client_of(answers, limits=Limits(histories=10)) as client,
        pytest.raises(InvalidRequest) as caught,
    ):
        client.score([["a"]] * 20, ["a", "b"])
    assert (caught.value.history, caught.value.candidate) == (None, 1)


def test_the_version_travels_only_when_it_is_given() -> None:
    bodies = []

    def handler(request: httpx.Request) -> httpx.Response:
        bodies.append(json.loads(request.content))
        return answer(request)

    with client_of(handler) as client:
        client.encode([["a"]], version="7")
        client.encode([["a"]])
    assert bodies[0]["version"] == "7"
    assert not {"version", "model"} & bodies[1].keys()


def test_the_null_score_of_an_unknown_candidate_is_nan() -> None:
    with client_of(Answers(scored(0.5, None, -1.0))) as client:
        (user,) = client.score([["a"]], ["a", "unknown", "b"]).users
    assert user.scores.dtype == np.float32
    np.testing.assert_array_equal(user.scores, [0.5, np.nan, -1.0])


def test_no_candidates_give_attention_without_candidates() -> None:
    answers = Answers(scored(attention={"items": ["a"], "weights": []}))
    with client_of(answers) as client:
        (user,) = client.score([["a"]], [], attention=True).users
    assert user.attention is not None
    assert user.attention.weights.shape == (0, 0, 1)


def test_requests_for_scores_stay_within_the_limit_of_scores() -> None:
    asked = []

    def handler(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        asked.append(len(body["histories"]) * len(body["candidates"]))
        return scored(0.0, 1.0, 2.0, histories=len(body["histories"]))

    with client_of(handler, limits=Limits(scores=12)) as client:
        assert len(client.score([["a"]] * 10, ["a", "b", "c"])) == 10
    assert asked == [12, 12, 6]


def test_lists_of_candidates_and_histories_must_be_as_many() -> None:
    with client_of(answer) as client, pytest.raises(InvalidRequest, match="1 lists"):
        client.score([["a"], ["b"]], [["a"]])


def test_an_id_that_json_cannot_write_is_named_with_its_place() -> None:
    with client_of(answer) as client, pytest.raises(InvalidRequest) as caught:
        client.encode([["a"], [object()]])  # type: ignore[list-item]  # the mistake under test
    assert caught.value.history == 1


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "model_not_found", ModelNotFound),
        (404, "not_found", UnexpectedAnswer),
        (413, "body_too_large", RequestTooLarge),
        (422, "invalid_request", InvalidRequest),
        (429, "overloaded", Overloaded),
        (500, "internal", ServerError),
        (503, "not_ready", NotReady),
        (504, "deadline_exceeded", DeadlineExceeded),
        (418, "teapot", UnexpectedAnswer),
    ],
)
def test_a_status_becomes_its_error(status: int, code: str, kind: type[PersonaError]) -> None:
    with client_of(Answers(refusal(status, code=code))) as client:
        with pytest.raises(kind, match="what is wrong") as caught:
            client.encode([["a"]])
        assert type(caught.value) is kind


@pytest.mark.parametrize("failure", [refusal(429), refusal(502), refusal(503), refusal(504)])
def test_a_temporary_failure_is_tried_again(failure: httpx.Response) -> None:
    answers = Answers(failure, httpx.ConnectError("refused"), answer)
    with client_of(answers) as client:
        assert len(client.encode([["a"]])) == 1
    assert answers.count == 3


@pytest.mark.parametrize("status", [400, 404, 413, 422, 500])
def test_a_lasting_failure_is_not_tried_again(status: int) -> None:
    answers = Answers(refusal(status))
    with client_of(answers) as client, pytest.raises(PersonaError):
        client.encode([["a"]])
    assert answers.count == 1


def test_the_last_error_comes_through_when_the_attempts_are_used_up() -> None:
    answers = Answers(httpx.ConnectError("refused"))
    with (
        client_of(answers, attempts=3) as client,
        pytest.raises(ConnectionFailed, match="http://service: refused"),
    ):
        client.encode([["a"]])
    assert answers.count == 3


def test_the_pause_is_what_the_service_asks_for() -> None:
    with client_of(answer) as client:
        error = Overloaded("later")
        assert client._retry_when(error) is True
        error.retry_after_s = 2.5
        assert client._retry_when(error) == 2.5


def test_the_pause_is_at_least_a_second_as_few_attempts_must_outlast_a_restart() -> None:
    with client_of(answer) as client:
        assert client._retry_when(Overloaded("later", retry_after_s=0.07)) == 1.0


def test_milliseconds_say_more_than_whole_seconds() -> None:
    headers = {"Retry-After": "1", "Retry-After-Ms": "70"}
    answers = Answers(refusal(429, headers=headers))
    with client_of(answers, attempts=1) as client, pytest.raises(Overloaded) as caught:
        client.encode([["a"]])
    assert caught.value.retry_after_s == 0.07


def test_a_pause_beyond_the_time_for_retries_is_not_awaited() -> None:
    answers = Answers(refusal(429, headers={"Retry-After": "3600"}))
    with client_of(answers) as client, pytest.raises(Overloaded) as caught:
        client.encode([["a"]])
    assert (caught.value.retry_after_s, answers.count) == (3600, 1)


def test_no_answer_within_the_timeout_is_a_deadline_exceeded() -> None:
    answers = Answers(httpx.ReadTimeout("slow"))
    with (
        client_of(answers, timeout_s=0.5) as client,
        pytest.raises(DeadlineExceeded, match=r"no answer in 0\.5 s"),
    ):
        client.encode([["a"]])


def other_answer(**changed: Any) -> str:
    """The service's answer to one history, with other values."""
    user = {"id": None, "used": 1, "truncated": 0, "unknown": 0, "embedding": "AAAAAA=="}
    return json.dumps({"model": "m", "version": "1", "users": [user | changed]})


def in_base64(*numbers: float) -> str:
    return base64.b64encode(np.array(numbers, "<f4").tobytes()).decode()


@pytest.mark.parametrize(
    "text",
    [
        "<html>",
        "{}",
        "[]",
        '{"model": "m", "version": "1", "users": []}',
        other_answer(used="one"),
        other_answer(used=True),
        other_answer(truncated=-1),
        other_answer(unknown=2**31),
        other_answer(id={}),
        other_answer(embedding="not base64"),
        other_answer(embedding=in_base64(1, np.nan)),
        other_answer(embedding=in_base64(np.inf)),
        other_answer(embedding="AAA="),
        other_answer(attention={"items": [], "weights": [["x"]], "start": [1]}),
        other_answer(attention={"items": [], "weights": [[None]], "start": [1]}),
        other_answer(attention={"items": [], "weights": [0.5], "start": [1]}),
        other_answer(attention={"items": [], "blocks": [[1e39]]}),
        other_answer(attention=[]),
    ],
)
def test_an_answer_in_another_shape_is_unexpected(text: str) -> None:
    with (
        client_of(Answers(httpx.Response(200, text=text))) as client,
        pytest.raises(UnexpectedAnswer, match="POST http://service/v1/encode"),
    ):
        client.encode([["a"]])


@pytest.mark.parametrize("scores", [[1e39], [[1.0]], ["x"]])
def test_scores_that_are_no_finite_numbers_are_unexpected(scores: list[Any]) -> None:
    with client_of(Answers(scored(*scores))) as client, pytest.raises(UnexpectedAnswer):
        client.score([["a"]], ["b"])


@pytest.mark.parametrize("limit", [1, 10], ids=["over two requests", "in one request"])
def test_embeddings_of_different_widths_are_unexpected(limit: int) -> None:
    def widening(request: httpx.Request) -> httpx.Response:
        body = json.loads(answer(request).content)
        for user in body["users"]:
            user["embedding"] = in_base64(*[1] * (3 + 2 * user["used"]))
        return httpx.Response(200, json=body)

    limits = Limits(histories=limit)
    with client_of(widening, limits=limits) as client, pytest.raises(UnexpectedAnswer):
        client.encode([[], ["a"]])


def bomb(_: httpx.Request) -> httpx.Response:
    """Thirty megabytes of spaces in thirty kilobytes, which a stream delivers."""
    pieces = iter([gzip.compress(b" " * 30_000_000)])
    return httpx.Response(200, headers={"content-encoding": "gzip"}, content=pieces)


def test_a_compressed_answer_is_refused_before_it_is_inflated() -> None:
    with client_of(bomb) as client, pytest.raises(UnexpectedAnswer, match="compressed with gzip"):
        client.encode([["a"]])


def test_an_answer_is_read_up_to_its_limit() -> None:
    pieces = iter([b" " * 1000] * 1000)
    answers = Answers(httpx.Response(200, content=pieces))
    with (
        client_of(answers, limits=Limits(answer_bytes=10_000)) as client,
        pytest.raises(UnexpectedAnswer, match="more than 10,000 bytes"),
    ):
        client.encode([["a"]])
    assert len(list(pieces)) > 980


@pytest.mark.parametrize("bug", [KeyError("ours"), TypeError("ours"), ValueError("ours")])
def test_a_bug_of_the_client_is_not_called_an_unexpected_answer(bug: Exception) -> None:
    def buggy(_: Any) -> None:
        raise bug

    with pytest.raises(type(bug), match="ours"):
        read(Call("GET", "/v1/models", buggy), httpx.Response(200, json={}))


def test_an_error_page_of_a_proxy_is_quoted() -> None:
    with (
        client_of(Answers(httpx.Response(503, text="<h1>no backend</h1>"))) as client,
        pytest.raises(NotReady, match="no backend"),
    ):
        client.encode([["a"]])


def test_a_version_that_changes_between_two_parts_is_an_error() -> None:
    other = {"id": None, "used": 0, "truncated": 0, "unknown": 0, "embedding": "AAAAAAAAAAA="}
    second = httpx.Response(200, json={"model": "fake", "version": "2", "users": [other]})
    with (
        client_of(Answers(answer, second), limits=Limits(histories=1)) as client,
        pytest.raises(ModelChanged, match="version 1 to fake version 2"),
    ):
        client.encode([["a"], ["b"]])


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://service", "http://a:b"])
def test_an_address_that_cannot_work_is_refused_at_once(url: str) -> None:
    with pytest.raises(ConnectionFailed, match=re.escape(url)):
        Client(url)


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
        pytest.raises(NotReady, match="within 0 s: what is wrong"),
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
