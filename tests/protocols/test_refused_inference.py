"""Infer requests that are refused: what Triton's client can send, and bytes that it never does."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from tests.protocols.test_triton_client import MASK, padded, tensor
from tests.serving import serving


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a row beyond the table": (
        {"inputs": [tensor("item_ids", [[1, 21]], "INT64")]},
        "has row 21; rows go from 0 to 19, and 20 is",
    ),
    "a negative row": ({"inputs": [tensor("item_ids", [[-1]], "INT64")]}, "has row -1"),
    "no item ids": ({"inputs": [tensor("key_mask", MASK, "BOOL")]}, "'item_ids' is missing"),
    "another input": (
        {"inputs": [*padded(), tensor("other", [1], "INT64")]},
        "unknown inputs: other",
    ),
    "one input twice": ({"inputs": [*padded(), *padded()]}, "comes twice"),
    "a mask of another shape": (
        {"inputs": [padded()[0], tensor("key_mask", MASK[:1], "BOOL")]},
        r"'key_mask' must be BOOL of shape \[2, 3\]",
    ),
    "one axis and no lengths": (
        {"inputs": [tensor("item_ids", [1, 2], "INT64")]},
        "two axes, histories and clicks",
    ),
    "lengths that do not sum": (
        {"inputs": [tensor("item_ids", [1, 2], "INT64"), tensor("lengths", [3], "INT64")]},
        "sum to the 2 values",
    ),
    "lengths and a mask": (
        {"inputs": [*padded(), tensor("lengths", [3], "INT64")]},
        "one or the other",
    ),
    "floats": ({"inputs": [tensor("item_ids", np.ones((1, 1), np.float32), "FP32")]}, "FP32"),
    "an unknown item": (
        {
            "inputs": [tensor("item_ids", np.array([["nothing"]], np.object_), "BYTES")],
            "parameters": {"unknown_items": "error"},
        },
        "history 0, item 0: unknown item 'nothing'",
    ),
    "an unknown output": (
        {"inputs": padded(), "outputs": [triton.InferRequestedOutput("logits")]},
        "no output 'logits'; known: user_embedding",
    ),
    "an unknown parameter's value": (
        {"inputs": padded(), "parameters": {"item_ids": "words"}},
        "is \"words\", not 'rows' or 'ids'",
    ),
    "too many histories": (
        {"inputs": [tensor("item_ids", np.zeros((2000, 1), np.int64), "INT64")]},
        "2,000 histories, limit 1,024",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_is_400_and_says_what_is_wrong(
    client: triton.InferenceServerClient, name: str
) -> None:
    fields, text = REFUSED[name]
    with pytest.raises(InferenceServerException, match=text) as refusal:
        client.infer("mixed", **fields)
    assert refusal.value.status() == "400"


INFER = "/v2/models/mixed/infer"
ONE_ROW = {"name": "item_ids", "shape": [1, 1], "datatype": "INT64"}
BODY = json.dumps({"inputs": [{**ONE_ROW, "data": [1]}]}).encode()
HEAD = json.dumps({"inputs": [{**ONE_ROW, "parameters": {"binary_data_size": 8}}]}).encode()
TEXT_HEAD = HEAD.replace(b"INT64", b"BYTES")
LENGTH = "inference-header-content-length"
CUT_SHORT = gzip.compress(BODY, mtime=0)[:-3]


@pytest.mark.parametrize(
    ("body", "headers", "text"),
    [
        (BODY, {LENGTH: "x"}, "expected a number of bytes"),
        (BODY, {LENGTH: "9999"}, "the header says 9999 bytes of JSON"),
        (HEAD + bytes(4), {LENGTH: str(len(HEAD))}, "binary_data_size 8, and 4 bytes are left"),
        (HEAD + bytes(9), {LENGTH: str(len(HEAD))}, "1 bytes behind the last input"),
        (TEXT_HEAD + bytes(8), {LENGTH: str(len(HEAD))}, "2 values, shape"),
        (
            TEXT_HEAD + b"\xff" * 8,
            {LENGTH: str(len(HEAD))},
            "a last text that lacks 4294967291 bytes",
        ),
        (TEXT_HEAD + b"\x04\x00\x00\x00\xffabc", {LENGTH: str(len(HEAD))}, "not UTF-8"),
        (BODY.replace(b"[1]", b"[[1]]"), {}, None),
        (BODY.replace(b"[1]", b"[[1], [2, 3]]"), {}, "data that is not 1 lists of 1 values"),
        (BODY.replace(b"[1]", b"[true]"), {}, "values of type bool in data of datatype INT64"),
        (BODY.replace(b"[1]", b"[1e3]"), {}, "values of type float"),
        (BODY.replace(b"[1]", b"[9223372036854775808]"), {}, "a value that is no INT64"),
        (BODY.replace(b'"data": [1]', b'"x": 1'), {}, "neither data nor binary_data_size"),
        (BODY.replace(b"[1, 1]", b"[-1, 1]"), {}, "inputs.0.shape.0: expected greater than"),
        (BODY.replace(b"[1, 1]", b"[1000000000, 0]"), {}, "1 values, shape"),
        (b"{}", {}, "field 'inputs' is missing"),
        (b"{", {}, "the body is not JSON"),
        (b"\xff\xff\xff", {"content-encoding": "gzip"}, "the body is not gzip"),
        (
            gzip.compress(BODY, mtime=0)[:-3],
            {"content-encoding": "gzip"},
            "not one whole gzip stream",
        ),
        (zlib.compress(BODY) + b"x", {"content-encoding": "deflate"}, "not one whole deflate"),
        (BODY, {"content-encoding": "br"}, "only gzip and deflate"),
    ],
    ids=lambda value: str(value)[:50],
)
def test_bytes_that_no_client_sends_are_refused(
    service: httpx.Client, body: bytes, headers: dict[str, str], text: str | None
) -> None:
    answer = service.post(INFER, content=body, headers=headers)
    if text is None:
        assert answer.status_code == 200
    else:
        assert answer.status_code == 400
        assert text in answer.json()["error"]


def test_a_body_that_grows_beyond_the_limit_is_not_decompressed(service: httpx.Client) -> None:
    bomb = gzip.compress(b" " * 100_000_000)
    assert len(bomb) < 200_000
    answer = service.post(INFER, content=bomb, headers={"content-encoding": "gzip"})
    assert answer.status_code == 413
    assert answer.json()["error"] == "the decompressed body has more than 200,000 bytes, the limit"


def test_a_wide_shape_with_few_clicks_takes_no_memory_for_its_attention(
    service: httpx.Client,
) -> None:
    shape, values = [1, 5000], [1] + [0] * 4999
    mask = {"name": "key_mask", "shape": shape, "datatype": "BOOL", "data": list(map(bool, values))}
    rows = {"name": "item_ids", "shape": shape, "datatype": "INT64", "data": values}
    body = {"inputs": [rows, mask], "outputs": [{"name": "attention_full"}]}
    answer = service.post(INFER, json=body)
    assert answer.status_code == 400
    assert "has 100,040,004 values, limit 2,000,000" in answer.json()["error"]


def test_a_path_that_is_not_there_answers_in_the_same_shape(service: httpx.Client) -> None:
    for answer in (service.get("/v2/nothing"), service.get(INFER)):
        assert answer.status_code in {404, 405}
        assert answer.json().keys() == {"error"}


def test_a_failure_is_500_in_the_same_shape_and_says_nothing(
    service: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ValueError("word1")

    with monkeypatch.context() as patch:
        patch.setattr("persona.engine.model.Model.submit", fail)
        answer = service.post(INFER, content=BODY)
    assert (answer.status_code, answer.json()) == (500, {"error": "internal error"})


def test_behind_a_prefix_errors_have_the_same_shape(mixed_artifacts: Path) -> None:
    with serving(mixed_artifacts, root_path="/shop") as client:
        assert client.get("/v2/models/none").json().keys() == {"error"}
        assert client.post(INFER, content=BODY).status_code == 200
