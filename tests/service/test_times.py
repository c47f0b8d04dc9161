"""Histories with times, and the time of asking, through every protocol and the client."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from openai import OpenAI

from persona.artifact import open_artifact
from persona.client import Client
from persona.contract import Floats
from persona.engine import Engine
from tests.conftest import TINY, TINY_ITEMS, random_encoder
from tests.protocols.tensors import infer
from tests.serving import serving

TODAY, DAY = 1_700_000_000, 86_400
LONG: dict[str, Any] = {
    "items": [f"item {at % 20}" for at in range(15)],  # the model reads 12
    "times": [TODAY + at**3 for at in range(15)],
    "now": TODAY + 9 * DAY,
}
HISTORIES: list[Any] = [
    {"id": 7, "items": ["item 1", "item 2", "new"], "times": [TODAY, TODAY + 5.9, TODAY + DAY]},
    LONG,
    {"items": ["item 3"], "times": [TODAY], "now": TODAY + 60},
    [],
]


@pytest.fixture(scope="module")
def client(timed_artifacts: Path) -> Iterator[httpx.Client]:
    with serving(timed_artifacts, max_history_items=30) as running:
        yield running


@pytest.fixture(scope="module")
def engine(timed_artifacts: Path) -> Engine:
    return Engine.open(timed_artifacts)


def answer(client: httpx.Client, route: str, **body: Any) -> list[dict[str, Any]]:
    response = client.post(f"/v1/{route}", json=body)
    assert response.status_code == 200, response.text
    users: list[dict[str, Any]] = response.json()["users"]
    return users


def embeddings_of(client: httpx.Client, histories: Any) -> NDArray[np.float64]:
    return np.array([user["embedding"] for user in answer(client, "encode", histories=histories)])


def by_torch(items: list[str], times: list[int], now: int) -> Floats:
    encoder = random_encoder(replace(TINY, time="gaps"), len(TINY_ITEMS))
    rows = [TINY_ITEMS.index(item) if item in TINY_ITEMS else len(TINY_ITEMS) for item in items]
    item_ids, seconds = torch.tensor([rows[-12:]]), torch.tensor([times[-12:]]).long()
    with torch.no_grad():
        embedding, _ = encoder.encode(
            item_ids, torch.ones_like(item_ids) > 0, seconds, torch.tensor([now])
        )
    found: Floats = embedding[0].numpy()
    return found


def test_the_embedding_is_that_of_the_trained_encoder(client: httpx.Client) -> None:
    found = embeddings_of(client, HISTORIES)
    times = [TODAY, TODAY + 5, TODAY + DAY]
    np.testing.assert_allclose(
        found[0], by_torch(HISTORIES[0]["items"], times, times[-1]), atol=1e-5
    )
    np.testing.assert_allclose(found[1], by_torch(*LONG.values()), atol=1e-5)
    np.testing.assert_allclose(found[2], by_torch(["item 3"], [TODAY], TODAY + 60), atol=1e-5)


def test_a_history_has_the_same_embedding_alone_and_among_others(client: httpx.Client) -> None:
    alone = np.concatenate([embeddings_of(client, [history]) for history in HISTORIES])
    np.testing.assert_allclose(embeddings_of(client, HISTORIES), alone, atol=1e-5)


def test_without_a_time_of_asking_it_is_that_of_the_newest_click(client: httpx.Client) -> None:
    unsaid = {name: value for name, value in LONG.items() if name != "now"}
    expected = by_torch(unsaid["items"], unsaid["times"], unsaid["times"][-1])
    np.testing.assert_allclose(embeddings_of(client, [unsaid])[0], expected, atol=1e-5)
    assert np.abs(embeddings_of(client, [LONG])[0] - expected).max() > 1e-3


def test_a_time_of_asking_that_is_known_is_a_second_after_the_newest_click(
    client: httpx.Client,
) -> None:
    newest = LONG["times"][-1]
    expected = by_torch(LONG["items"], LONG["times"], newest + 1)
    for now in (newest + 1, newest, newest - DAY):
        found = embeddings_of(client, [LONG | {"now": now}])[0]
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_an_item_that_is_dropped_takes_its_time_along(client: httpx.Client) -> None:
    times = [TODAY, TODAY + 5, TODAY + DAY]
    mixed = {"items": ["item 1", "new", "item 2"], "times": times}
    known = {"items": ["item 1", "item 2"], "times": [times[0], times[2]]}
    dropped = answer(client, "encode", histories=[mixed], unknown_items="drop")[0]
    np.testing.assert_allclose(dropped["embedding"], embeddings_of(client, [known])[0], atol=1e-6)


def test_scores_and_recommendations_read_times_too(client: httpx.Client, engine: Engine) -> None:
    candidates = ["item 4", "item 5"]
    scores = [
        user["scores"]
        for user in answer(client, "score", histories=HISTORIES, candidates=candidates)
    ]
    expected = [user.scores for user in engine.score(HISTORIES, candidates).users]
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    found = answer(client, "recommend", histories=HISTORIES, k=3, with_reasons=True)
    assert [user["items"] for user in found] == [
        user.items for user in engine.recommend(HISTORIES, 3).users
    ]
    for user in found:
        reasons = user["reasons"]
        sums = np.array(reasons["weights"]).reshape(3, -1).sum(1) + reasons["base"]
        np.testing.assert_allclose(sums, user["scores"], atol=1e-4)


def test_the_client_sends_times(client: httpx.Client, engine: Engine) -> None:
    arrays = [one | {"times": np.array(one["times"])} if one else one for one in HISTORIES]
    with Client(str(client.base_url)) as own:
        found = own.encode(arrays)
        assert (
            own.recommend(HISTORIES, 2).users[1].items
            == engine.recommend(HISTORIES, 2).users[1].items
        )
    expected = engine.encode(arrays)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, atol=1e-5)
    assert [user.id for user in found.users] == [7, None, None, None]


def test_openai_s_client_sends_times_as_fields_of_persona(client: httpx.Client) -> None:
    items: Any = [["item 1", "item 2"], []]
    times = [[TODAY, TODAY + 9], []]
    url = str(client.base_url.join("/v1"))
    with OpenAI(base_url=url, api_key="none", max_retries=0) as own:
        extra = {"times": times, "now": [TODAY + DAY, None]}
        data = own.embeddings.create(model="timed", input=items, extra_body=extra).data
    native = [{"items": items[0], "times": times[0], "now": TODAY + DAY}, []]
    np.testing.assert_allclose(
        [one.embedding for one in data], embeddings_of(client, native), atol=1e-6
    )


@pytest.mark.parametrize("binary", [True, False])
def test_triton_s_client_sends_times_as_tensors(client: httpx.Client, binary: bool) -> None:
    tensors = {
        "item_ids": (np.array([[1, 2], [0, 3]]), "INT64"),
        "key_mask": (np.array([[True, True], [False, True]]), "BOOL"),
        "times": (np.array([[TODAY, TODAY + 9], [0, TODAY]]), "INT64"),
        "asked": (np.array([TODAY + DAY, TODAY]), "INT64"),
    }
    found, declared = infer(client, "timed", tensors, binary=binary)
    assert declared == list(tensors)
    first = {"items": ["item 1", "item 2"], "times": [TODAY, TODAY + 9], "now": TODAY + DAY}
    second = {"items": ["item 3"], "times": [TODAY], "now": TODAY}
    native = embeddings_of(client, [first, second])
    np.testing.assert_allclose(found, native, atol=1e-6)


SECONDS = "expected seconds, a number of at most 2**53"
ONE = {"items": ["item 1"]}
READS = "which model 'timed' reads of every click"
REFUSED: list[tuple[Any, str, list[str | int]]] = [
    ([[], ["item 1"]], f"history 1 has 1 items and 0 values of 'time', {READS}", [1]),
    (
        [ONE | {"times": [1, 2]}],
        f"history 0 has 1 items and 2 values of 'time', {READS}",
        [0, "items"],
    ),
    ([ONE | {"times": ["noon"]}], f'history 0, time 0: {SECONDS}, got "noon"', [0, "times", 0]),
    ([ONE | {"times": [2**60]}], f"history 0, time 0: {SECONDS}, got {2**60}", [0, "times", 0]),
    ([ONE | {"times": 5}], "history 0, times: expected a list of seconds, got 5", [0, "times"]),
    ([ONE | {"times": [5], "now": True}], f"history 0, now: {SECONDS}, got true", [0, "now"]),
]


@pytest.mark.parametrize(("histories", "message", "path"), REFUSED, ids=[one[1] for one in REFUSED])
def test_what_is_wrong_with_times_is_said(
    client: httpx.Client, histories: Any, message: str, path: list[str | int]
) -> None:
    response = client.post("/v1/encode", json={"histories": histories})
    error = response.json()["error"]
    assert response.status_code == 422
    assert (error["message"], error["path"]) == (message, ["histories", *path])


def test_the_other_protocols_refuse_times_of_another_shape(client: httpx.Client) -> None:
    body: dict[str, Any] = {"model": "timed", "input": [["item 1"]], "times": [[1]], "now": [1, 2]}
    response = client.post("/v1/embeddings", json=body)
    assert response.status_code == 422
    assert "times of asking are 2, histories 1" in response.text
    ids = {"name": "item_ids", "datatype": "INT64", "shape": [1, 2], "data": [1, 2]}
    for tensor, wanted in (
        ({"name": "times", "datatype": "INT64", "shape": [2], "data": [1, 2]}, "shape [1, 2]"),
        ({"name": "asked", "datatype": "INT64", "shape": [2], "data": [1, 2]}, "shape [1]"),
    ):
        response = client.post("/v2/models/timed/infer", json={"inputs": [ids, tensor]})
        assert response.status_code == 400
        assert f"input '{tensor['name']}' must be INT64 of {wanted}" in response.json()["error"]


def test_the_manifest_declares_what_the_graphs_read(timed_artifacts: Path) -> None:
    manifest = open_artifact(timed_artifacts / "timed" / "1").manifest
    assert manifest.architecture.time == "gaps"
    for graph in manifest.graphs.values():
        assert [one.carries for one in graph.inputs] == [
            "clicks.item_id",
            "clicks.mask",
            "clicks.time",
            "query.time",
        ]
