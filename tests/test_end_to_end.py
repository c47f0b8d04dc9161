"""The same history has the same embedding everywhere: PyTorch, ONNX Runtime, HTTP in both forms."""

import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from model.clicks.histories import pad
from tests.conftest import TINY, TINY_ITEMS, random_encoder
from tests.serving import serving

ENCODER = random_encoder(TINY, len(TINY_ITEMS))  # what `tiny_artifact` was exported from
ROWS = {item_id: row for row, item_id in enumerate(TINY_ITEMS)}
Floats = NDArray[np.float32]

item_ids = st.sampled_from([*TINY_ITEMS, "never seen"])
histories = st.lists(item_ids, max_size=TINY.max_length + 5)


@pytest.fixture(scope="module")
def service(tiny_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(tiny_artifacts) as client:
        yield client


@pytest.fixture(scope="module")
def session(tiny_artifact: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(tiny_artifact / "embedding.onnx")


def rows_of(batch: list[list[str]]) -> list[NDArray[np.int32]]:
    unknown = len(TINY_ITEMS)
    return [np.array([ROWS.get(item, unknown) for item in history], np.int32) for history in batch]


def by_pytorch(history: list[str]) -> Floats:
    with torch.no_grad():
        embedding, _ = ENCODER.encode(
            *map(torch.from_numpy, pad(rows_of([history]), TINY.max_length))
        )
    result: Floats = embedding.numpy()[0]
    return result


def by_onnx(session: onnxruntime.InferenceSession, batch: list[list[str]], padding: int) -> Floats:
    ids, mask = pad(rows_of(batch), TINY.max_length)
    ids = np.pad(ids, ((0, 0), (0, padding)))
    mask = np.pad(mask, ((0, 0), (0, padding)))
    ids[~mask] = 7  # whatever stands under the padding
    result: Floats = session.run(None, {"item_ids": ids, "key_mask": mask})[0]
    return result


def by_http(service: httpx.Client, batch: list[list[str]], encoding: str) -> Floats:
    answer = service.post("/v1/encode", json={"histories": batch, "encoding": encoding})
    embeddings = [user["embedding"] for user in answer.raise_for_status().json()["users"]]
    if encoding == "base64":
        embeddings = [np.frombuffer(base64.b64decode(text), "<f4") for text in embeddings]
    return np.array(embeddings, np.float32)


@settings(max_examples=60, deadline=None)
@given(batch=st.lists(histories, min_size=1, max_size=5), padding=st.integers(0, 6))
def test_every_way_gives_the_same_embedding(
    service: httpx.Client,
    session: onnxruntime.InferenceSession,
    batch: list[list[str]],
    padding: int,
) -> None:
    expected = np.stack([by_pytorch(history) for history in batch])
    for actual in (
        by_onnx(session, batch, padding),
        by_http(service, batch, "float"),
        by_http(service, batch, "base64"),
        by_http(service, batch[:1], "float"),
    ):
        np.testing.assert_allclose(actual, expected[: len(actual)], atol=1e-5, rtol=0)


@settings(max_examples=30, deadline=None)
@given(
    batch=st.lists(histories, min_size=1, max_size=5), attention=st.sampled_from(["pooled", "full"])
)
def test_attention_rows_sum_to_one_over_real_clicks_and_the_start_token(
    service: httpx.Client, batch: list[list[str]], attention: str
) -> None:
    answer = service.post("/v1/encode", json={"histories": batch, "attention": attention})
    users = answer.raise_for_status().json()["users"]
    for history, user in zip(batch, users, strict=True):
        seen = history[-TINY.max_length :]
        assert user["attention"]["items"] == seen
        if attention == "pooled":
            weights = np.array(user["attention"]["weights"]).reshape(TINY.heads, len(seen))
            sums = np.array(user["attention"]["start"]) + weights.sum(-1)
        else:
            blocks = np.array(user["attention"]["blocks"])
            assert blocks.shape == (TINY.blocks, TINY.heads, 1 + len(seen), 1 + len(seen))
            assert (np.triu(blocks, 1) == 0).all()  # nobody looks ahead
            sums = blocks.sum(-1)
        np.testing.assert_allclose(sums, 1, atol=1e-5)
