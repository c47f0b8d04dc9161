"""Triton's own HTTP client, unmodified, against a running service."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from tritonclient.utils import InferenceServerException

from persona.contract import ItemId
from tests.protocols.conftest import ITEMS, assert_close, encoded
from tests.serving import serving

ROWS = np.array([[1, 2, 11], [0, 3, 0]])
MASK = np.array([[True, True, True], [False, True, False]])
HISTORIES: list[list[ItemId]] = [["word1", "word2", 101], ["word3"]]
WORDS = np.array([["word1", "word2"], ["word3", ""]], np.object_)
UNKNOWN_ROW = len(ITEMS)

BINARY, IN_JSON = True, False


@pytest.fixture
def client(address: str) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(address) as client:
        yield client


def tensor(name: str, values: Any, datatype: str, binary: bool = BINARY) -> triton.InferInput:
    values = np.asarray(values)
    given = triton.InferInput(name, list(values.shape), datatype)
    given.set_data_from_numpy(values, binary_data=binary)
    return given


def padded(binary: bool = BINARY) -> list[triton.InferInput]:
    return [
        tensor("item_ids", ROWS, "INT64", binary),
        tensor("key_mask", MASK, "BOOL", binary),
    ]


INPUTS: dict[str, tuple[Any, dict[str, str], list[list[ItemId]]]] = {
    "rows": (padded, {}, HISTORIES),
    "rows of 32 bits": (
        lambda binary: [
            tensor("item_ids", ROWS.astype(np.int32), "INT32", binary),
            tensor("key_mask", MASK, "BOOL", binary),
        ],
        {},
        HISTORIES,
    ),
    "rows without a mask": (
        lambda binary: [tensor("item_ids", ROWS[:1], "INT64", binary)],
        {},
        HISTORIES[:1],
    ),
    "flat rows": (
        lambda binary: [
            tensor("item_ids", [1, 2, 11, 3], "INT64", binary),
            tensor("lengths", [3, 0, 1], "INT64", binary),
        ],
        {},
        [HISTORIES[0], [], HISTORIES[1]],
    ),
    "the row of unknown items": (
        lambda binary: [tensor("item_ids", [[1, UNKNOWN_ROW]], "INT64", binary)],
        {},
        [["word1", "nothing"]],
    ),
    "texts": (
        lambda binary: [
            tensor("item_ids", WORDS, "BYTES", binary),
            tensor("key_mask", WORDS != "", "BOOL", binary),
        ],
        {},
        [["word1", "word2"], ["word3"]],
    ),
    "flat texts": (
        lambda binary: [
            tensor("item_ids", np.array(["word1", "wört"], np.object_), "BYTES", binary),
            tensor("lengths", np.array([1, 1], np.int32), "INT32", binary),
        ],
        {},
        [["word1"], ["wört"]],
    ),
    "integer ids": (
        lambda binary: [tensor("item_ids", [[101, 105]], "INT64", binary)],
        {"item_ids": "ids"},
        [[101, 105]],
    ),
    "no history": (
        lambda binary: [tensor("item_ids", np.empty((0, 3), np.int64), "INT64", binary)],
        {},
        [],
    ),
}


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("given", [BINARY, IN_JSON], ids=["binary in", "JSON in"])
@pytest.mark.parametrize("wanted", [BINARY, IN_JSON], ids=["binary out", "JSON out"])
def test_every_input_and_encoding_gives_the_embeddings_of_our_own_protocol(
    client: triton.InferenceServerClient, address: str, name: str, given: bool, wanted: bool
) -> None:
    inputs, parameters, histories = INPUTS[name]
    outputs = [triton.InferRequestedOutput("user_embedding", binary_data=wanted)]
    answer = client.infer("mixed", inputs(given), outputs=outputs, parameters=parameters)
    expected = encoded(address, histories) if histories else np.empty((0, 16))
    found = answer.as_numpy("user_embedding")
    assert found.shape == expected.shape
    assert_close(found, expected)


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_a_body_may_be_compressed(
    client: triton.InferenceServerClient, address: str, algorithm: str
) -> None:
    answer = client.infer("mixed", padded(), request_compression_algorithm=algorithm)
    assert_close(answer.as_numpy("user_embedding"), encoded(address, HISTORIES))


def test_the_asynchronous_client_gets_the_same(address: str) -> None:
    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(address) as client:
            return (await client.infer("mixed", padded())).as_numpy("user_embedding")

    assert_close(asyncio.run(ask()), encoded(address, HISTORIES))


def test_id_name_and_version_come_back(client: triton.InferenceServerClient) -> None:
    answer = client.infer("mixed", padded(), request_id="seven", model_version="1").get_response()
    named = {name: answer[name] for name in ("id", "model_name", "model_version")}
    assert named == {"id": "seven", "model_name": "mixed", "model_version": "1"}


def test_pooled_attention_lies_where_the_clicks_lie(
    client: triton.InferenceServerClient, service: httpx.Client
) -> None:
    rows = np.array([[0, 1, 0, 2]])
    inputs = [
        tensor("item_ids", rows, "INT64"),
        tensor("key_mask", [[False, True, False, True]], "BOOL"),
    ]
    outputs = [triton.InferRequestedOutput("attention_pooled")]
    weights = client.infer("mixed", inputs, outputs=outputs).as_numpy("attention_pooled")
    body = {"histories": [["word1", "word2"]], "attention": "pooled"}
    (user,) = service.post("/v1/encode", json=body).json()["users"]
    assert weights.shape == (1, 2, 5)  # histories, heads, the start token and four places
    assert_close(weights[0][:, [2, 4]], user["attention"]["weights"])
    assert_close(weights[0][:, 0], user["attention"]["start"])
    assert not weights[0][:, [1, 3]].any()


def test_full_attention_lies_where_the_clicks_lie(
    client: triton.InferenceServerClient, service: httpx.Client
) -> None:
    long = np.arange(15) % 10  # the model reads the newest 12
    inputs = [tensor("item_ids", long, "INT64"), tensor("lengths", [14, 1], "INT64")]
    outputs = [
        triton.InferRequestedOutput("attention_full"),
        triton.InferRequestedOutput("user_embedding", binary_data=IN_JSON),
    ]
    weights = client.infer("mixed", inputs, outputs=outputs).as_numpy("attention_full")
    histories = [[f"word{row}" for row in long[:14]], [f"word{long[14]}"]]
    body = {"histories": histories, "attention": "full"}
    first, second = service.post("/v1/encode", json=body).json()["users"]
    assert weights.shape == (2, 2, 2, 15, 15)
    used = [0, *range(3, 15)]
    assert_close(weights[0][:, :, used][..., used], first["attention"]["blocks"])
    assert_close(weights[1][:, :, :2, :2], second["attention"]["blocks"])
    assert not weights[0][:, :, 1:3].any()


def test_the_server_says_what_it_is(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    metadata = client.get_server_metadata()
    assert metadata["name"] == "persona"
    assert "binary_tensor_data" in metadata["extensions"]


@pytest.mark.parametrize("version", ["", "1"])
def test_a_model_says_what_it_reads_and_gives(
    client: triton.InferenceServerClient, version: str
) -> None:
    assert client.is_model_ready("mixed", version)
    metadata = client.get_model_metadata("mixed", version)
    assert (metadata["name"], metadata["versions"]) == ("mixed", ["1"])
    assert metadata["platform"] == "onnx_onnxv1"
    assert metadata["inputs"] == [
        {"name": "item_ids", "datatype": "INT64", "shape": [-1, -1]},
        {"name": "key_mask", "datatype": "BOOL", "shape": [-1, -1]},
    ]
    shapes = {output["name"]: output["shape"] for output in metadata["outputs"]}
    assert shapes == {
        "user_embedding": [-1, 16],
        "attention_pooled": [-1, 2, -1],
        "attention_full": [-1, 2, 2, -1, -1],
    }


def test_the_repository_lists_its_models(client: triton.InferenceServerClient) -> None:
    expected = {"name": "mixed", "version": "1", "state": "READY", "reason": ""}
    assert client.get_model_repository_index() == [expected]


def test_statistics_count_histories_and_runs(client: triton.InferenceServerClient) -> None:
    (before,) = client.get_inference_statistics("mixed")["model_stats"]
    client.infer("mixed", padded())
    for arguments in ((), ("mixed",), ("mixed", "1")):
        (after,) = client.get_inference_statistics(*arguments)["model_stats"]
        assert (after["name"], after["version"]) == ("mixed", "1")
        assert after["inference_count"] == before["inference_count"] + 2
        assert after["execution_count"] == before["execution_count"] + 1


def test_statistics_say_how_long_requests_waited_and_were_computed(
    client: triton.InferenceServerClient,
) -> None:
    (before,) = client.get_inference_statistics("mixed")["model_stats"]
    began_ms = int(time.time() * 1000)
    client.infer("mixed", padded())
    with pytest.raises(InferenceServerException):
        client.infer("mixed", padded(), parameters={"unknown_items": "never"})
    (after,) = client.get_inference_statistics("mixed", "1")["model_stats"]
    took = {
        stage: {unit: duration[unit] - before["inference_stats"][stage][unit] for unit in duration}
        for stage, duration in after["inference_stats"].items()
    }
    assert {stage: duration["count"] for stage, duration in took.items()} == dict.fromkeys(took, 1)
    ns = {stage: duration["ns"] for stage, duration in took.items()}
    stages = [ns[name] for name in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert min(ns["fail"], ns["compute_input"], ns["compute_infer"], ns["compute_output"]) > 0
    assert ns["queue"] >= 0
    assert sum(stages) <= ns["success"] < 60e9
    assert after["last_inference"] >= began_ms


def test_an_unknown_model_or_version_is_404(client: triton.InferenceServerClient) -> None:
    for model, version in (("none", ""), ("mixed", "7")):
        with pytest.raises(InferenceServerException, match="loaded: ") as refusal:
            client.infer(model, padded(), model_version=version)
        assert refusal.value.status() == "404"
        assert not client.is_model_ready(model, version)


def test_whoever_is_no_operator_changes_nothing(client: triton.InferenceServerClient) -> None:
    for change in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException, match="PERSONA_ADMIN=1") as refusal:
            change("mixed")
        assert refusal.value.status() == "403"


def test_an_operator_loads_models_but_keeps_the_default(mixed_artifacts: Path) -> None:
    with serving(mixed_artifacts, admin=True) as service:
        client = triton.InferenceServerClient(service.base_url.netloc.decode())
        client.load_model("mixed")
        with pytest.raises(InferenceServerException, match="the default model"):
            client.unload_model("mixed")
        with pytest.raises(InferenceServerException, match="no model 'none'"):
            client.load_model("none")


def test_a_broken_service_is_live_but_not_ready(tmp_path: Path) -> None:
    with serving(tmp_path) as broken:
        address = f"{broken.base_url.host}:{broken.base_url.port}"
        with triton.InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert not client.is_server_ready()
            with pytest.raises(InferenceServerException, match="no artifact here") as refusal:
                client.infer("mixed", padded())
        assert refusal.value.status() == "503"
        assert broken.get("/v2/health/ready").status_code == 400
