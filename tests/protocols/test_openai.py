"""OpenAI's own client, unmodified, against a running service."""

import asyncio
import base64
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from openai import AsyncOpenAI, OpenAI

from persona.contract import ItemId
from tests.protocols.conftest import assert_close, encoded
from tests.serving import free_port, serving

WORDS: list[list[ItemId]] = [["word1", "word2"], ["word3"]]
NUMBERS: list[list[ItemId]] = [[101, 105], [100]]


@pytest.fixture
def client(address: str) -> Iterator[OpenAI]:
    with client_of(f"http://{address}") as client:
        yield client


def client_of(url: str, max_retries: int = 0) -> OpenAI:
    return OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=max_retries)


def url_of(service: httpx.Client) -> str:
    return str(service.base_url).rstrip("/")


@pytest.mark.parametrize(
    ("given", "histories"),
    [
        ("word1 word2", WORDS[:1]),
        (["word1  word2", " word3 "], WORDS),
        ([101, 105], NUMBERS[:1]),
        (NUMBERS, NUMBERS),
        ([["word1", 101], []], [["word1", 101], []]),
        ("", [[]]),
        ([[]], [[]]),
    ],
    ids=["text", "texts", "integers", "lists of integers", "lists of ids", "empty text", "empty"],
)
@pytest.mark.parametrize(
    "encoding", ["float", "base64", openai.omit], ids=["float", "base64", "unsaid"]
)
def test_every_input_and_encoding_gives_the_embeddings_of_our_own_protocol(
    client: OpenAI, address: str, given: Any, histories: list[list[ItemId]], encoding: Any
) -> None:
    answer = client.embeddings.create(model="mixed", input=given, encoding_format=encoding)
    embeddings: list[Any] = [one.embedding for one in answer.data]
    if encoding == "base64":  # asked for by name, the client leaves it as it is
        embeddings = [np.frombuffer(base64.b64decode(text), "<f4") for text in embeddings]
    assert_close(embeddings, encoded(address, histories))
    assert [one.index for one in answer.data] == list(range(len(histories)))
    clicks = sum(map(len, histories))
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (clicks, clicks)


def test_the_asynchronous_client_gets_the_same(address: str) -> None:
    async def ask() -> list[list[float]]:
        async with AsyncOpenAI(base_url=f"http://{address}/v1", api_key="none") as client:
            answer = await client.embeddings.create(model="mixed", input=["word1 word2", "word3"])
            return [one.embedding for one in answer.data]

    assert_close(asyncio.run(ask()), encoded(address, WORDS))


def test_langchain_embeds_documents_and_queries(address: str) -> None:
    options = {"base_url": f"http://{address}/v1", "api_key": "none", "model": "mixed"}
    # Unless told not to, it sends the numbers that OpenAI's own tokenizer makes of a text.
    embeddings = OpenAIEmbeddings(check_embedding_ctx_length=False, **options)
    assert_close(embeddings.embed_documents(["word1 word2", "word3"]), encoded(address, WORDS))
    assert_close([embeddings.embed_query("word1 word2")], encoded(address, WORDS[:1]))


def test_an_answer_names_model_and_version(client: OpenAI) -> None:
    for model in ("mixed", "mixed:1"):
        answer = client.embeddings.create(model=model, input="word1")
        assert (answer.model, answer.model_extra) == ("mixed", {"version": "1"})


def test_models_are_listed_and_found(client: OpenAI) -> None:
    (model,) = client.models.list()
    assert (model.id, model.object, model.owned_by) == ("mixed", "model", "persona")
    assert model.created > 1_700_000_000
    assert client.models.retrieve("mixed:1").id == "mixed:1"


def test_attention_comes_when_it_is_asked_for(client: OpenAI, service: httpx.Client) -> None:
    answer = client.embeddings.create(
        model="mixed", input="word1 word2", extra_body={"attention": "pooled"}
    )
    body = {"histories": WORDS[:1], "attention": "pooled"}
    (user,) = service.post("/v1/encode", json=body).json()["users"]
    assert (answer.data[0].model_extra or {})["attention"] == user["attention"]
    plain = client.embeddings.create(model="mixed", input="word1 word2")
    assert not plain.data[0].model_extra


@pytest.mark.parametrize(
    ("fields", "kind", "param", "text"),
    [
        ({"model": "none"}, openai.NotFoundError, "model", "no model 'none'"),
        ({"model": "mixed:7"}, openai.NotFoundError, "model", "no version '7'"),
        ({"dimensions": 8}, openai.UnprocessableEntityError, "dimensions", "cannot be shortened"),
        ({"input": []}, openai.UnprocessableEntityError, "input", "empty list"),
        ({"input": [1, "word1"]}, openai.UnprocessableEntityError, "input", "only integers"),
        ({"input": [[1.5]]}, openai.UnprocessableEntityError, "input", "input.0.0: expected a str"),
        ({"encoding_format": "int8"}, openai.UnprocessableEntityError, "encoding_format", "base64"),
        ({"extra_body": {"size": 1}}, openai.UnprocessableEntityError, "size", "not known"),
        (
            {"input": "word1 nothing", "extra_body": {"unknown_items": "error"}},
            openai.UnprocessableEntityError,
            "input",
            "history 0, item 1: unknown item 'nothing'",
        ),
        ({"input": "word1 " * 40_000}, openai.APIStatusError, None, "200,000"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else str(value)[:40],
)
def test_a_refusal_is_the_error_of_its_class_and_names_the_field(
    client: OpenAI, fields: dict[str, Any], kind: type[Any], param: str | None, text: str
) -> None:
    with pytest.raises(kind, match=text) as refusal:
        client.embeddings.create(**{"model": "mixed", "input": "word1"} | fields)
    assert refusal.value.param == param
    assert refusal.value.type == "invalid_request_error"
    assert refusal.value.response.headers["x-should-retry"] == "false"


def test_a_body_that_is_not_json_is_refused(service: httpx.Client) -> None:
    answer = service.post("/v1/embeddings", content=b"{")
    assert answer.status_code == 422
    assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_path_that_is_not_there_answers_in_the_same_shape(service: httpx.Client) -> None:
    for answer in (service.get("/v1/embeddings"), service.get("/v1/models/none")):
        assert answer.status_code in {404, 405}
        assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


def test_a_service_that_cannot_answer_says_so_and_asks_for_another_try(tmp_path: Path) -> None:
    with serving(tmp_path) as broken, client_of(url_of(broken)) as client:
        with pytest.raises(openai.InternalServerError, match="no artifact here") as refusal:
            client.embeddings.create(model="mixed", input="word1")
        assert refusal.value.status_code == 503
        assert refusal.value.response.headers["x-should-retry"] == "true"
        assert refusal.value.response.headers["retry-after"] == "1"


def test_a_deadline_that_passed_is_504(mixed_artifacts: Path) -> None:
    with serving(mixed_artifacts, deadline_ms=1, max_batch_tokens=16) as slow:
        client, late = client_of(url_of(slow)), openai.InternalServerError
        with client, pytest.raises(late, match="no result within 1 ms") as refusal:
            client.embeddings.create(model="mixed", input=[[100] * 12] * 1024)
    assert refusal.value.status_code == 504


def test_nobody_at_the_address_is_a_connection_error() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    with client_of(nobody) as client, pytest.raises(openai.APIConnectionError):
        client.embeddings.create(model="mixed", input="word1")


LARGE = {"histories": [[100] * 12] * 512}


def refused(service: httpx.Client) -> int:
    """How many requests for embeddings were answered with 429."""
    lines = service.get("/metrics").text.splitlines()
    wanted = 'persona_requests_total{route="/v1/embeddings",status="429"} '
    return sum(int(float(line.removeprefix(wanted))) for line in lines if line.startswith(wanted))


@contextmanager
def overloaded(service: httpx.Client, until: Callable[[], bool]) -> Iterator[None]:
    """Others ask for much at the same time, until something has happened."""

    def ask() -> None:
        with httpx.Client(base_url=service.base_url, timeout=30) as client:
            while not until():
                client.post("/v1/encode", json=LARGE)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join()


@pytest.fixture(scope="module")
def small_queue(mixed_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(mixed_artifacts, max_queue_tokens=1, max_batch_tokens=64) as service:
        yield service


def ask_for_ever(client: OpenAI) -> None:
    while True:
        client.embeddings.create(model="mixed", input="word1")


def test_an_overload_is_a_rate_limit_error(small_queue: httpx.Client) -> None:
    seen = threading.Event()
    with overloaded(small_queue, seen.is_set), client_of(url_of(small_queue)) as client:
        with pytest.raises(openai.RateLimitError, match="the queue") as refusal:
            ask_for_ever(client)
        seen.set()
    headers = refusal.value.response.headers
    assert int(headers["retry-after"]) == ceil(int(headers["retry-after-ms"]) / 1000)
    assert refusal.value.response.headers["x-should-retry"] == "true"


def test_the_client_tries_again_after_an_overload_and_gets_its_answer(
    small_queue: httpx.Client,
) -> None:
    url, before = url_of(small_queue), refused(small_queue)
    embeddings = []
    over = overloaded(small_queue, lambda: refused(small_queue) > before)
    with over, client_of(url, max_retries=10) as client:
        while refused(small_queue) == before:
            answer = client.embeddings.create(model="mixed", input="word1 word2")
            embeddings.append(answer.data[0].embedding)
    expected = encoded(url.removeprefix("http://"), WORDS[:1])
    assert_close(embeddings, np.repeat(expected, len(embeddings), axis=0))
