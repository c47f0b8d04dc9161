"""`POST /v1/items`: items that a running service had not been trained on."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.protocols.native.item_changes import ItemChangesResponse
from service.protocols.native.schema import RecommendResponse, SimilarResponse
from tests.conftest import TINY
from tests.serving import serving

RED = {"item": "red", "features": {"colour": "red", "price": 12}, "name": "Red thing"}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def client(shop_artifacts: Path, state: Path) -> Iterator[httpx.Client]:
    with serving(shop_artifacts, admin=True, state_folder=state) as running:
        yield running


def post(client: httpx.Client, path: str, **body: Any) -> dict[str, Any]:
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def test_a_new_item_is_encoded_scored_recommended_and_marked(client: httpx.Client) -> None:
    changed = post(client, "/v1/items", items=[RED])
    ItemChangesResponse.model_validate(changed, strict=True)
    assert (changed["n_items"], changed["added"], changed["workers"]) == (21, 1, 1)
    history = [["red", "item 3"]]
    assert post(client, "/v1/encode", histories=history)["users"][0]["unknown"] == 0
    scored = post(client, "/v1/score", histories=history, candidates=["red"])
    assert scored["users"][0]["scores"][0] is not None
    recommended = post(client, "/v1/recommend", histories=history, k=21)
    RecommendResponse.model_validate(recommended, strict=True)
    assert recommended["users"][0]["cold"] == ["red"]
    similar = post(client, "/v1/similar", items=["item 3"], k=20)
    SimilarResponse.model_validate(similar, strict=True)
    assert similar["items"][0]["cold"] == ["red"]
    (titled,) = post(client, "/v1/items/search", search="thing")["items"]
    assert titled["item"] == "red"


def test_changes_add_up_and_outlive_the_service(shop_artifacts: Path, state: Path) -> None:
    with serving(shop_artifacts, admin=True, state_folder=state) as client:
        post(client, "/v1/items", items=[RED])
        blue = {"item": 7, "vector": [0.5] * TINY.width}
        post(client, "/v1/items", items=[blue], remove=["item 3"])
    with serving(shop_artifacts, state_folder=state) as client:
        user = post(client, "/v1/recommend", histories=[["item 3"]], k=22)["users"][0]
    assert set(user["cold"]) == {"red", 7}
    assert "item 3" not in user["items"]
    assert user["unknown"] == 0
    assert len(list((state / "items").glob("*/shop/1/manifest.json"))) == 1


def test_broken_items_leave_the_version_as_it_was_trained(
    shop_artifacts: Path, state: Path
) -> None:
    with serving(shop_artifacts, admin=True, state_folder=state) as client:
        post(client, "/v1/items", items=[RED])
    (weights,) = (state / "items").glob("*/shop/1/weights.bin")
    weights.write_bytes(b"")
    with serving(shop_artifacts, state_folder=state) as client:
        assert post(client, "/v1/encode", histories=[["red"]])["users"][0]["unknown"] == 1
        assert "weights.bin" in client.get("/health/ready").json()["problems"]["shop/1"]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 422, "neither 'items' nor 'remove'"),
        ({"items": [{"item": "red"}]}, 422, "item 'red': no feature and no vector"),
        ({"items": [RED, RED]}, 422, "an item occurs more than once"),
        ({"items": [{"item": "red", "features": {"size": 1}}]}, 422, "no feature 'size'"),
        ({"items": [RED | {"link": "javascript:1"}]}, 422, "items.0.link: expected"),
        ({"remove": ["nowhere"]}, 422, "the model knows no item 'nowhere'"),
        ({"items": [RED], "model": "films"}, 404, "no model 'films'"),
    ],
    ids=["nothing", "no feature", "twice", "no such feature", "link", "unknown", "no model"],
)
def test_a_refusal_says_what_is_wrong(
    client: httpx.Client, body: dict[str, Any], status: int, message: str
) -> None:
    response = client.post("/v1/items", json=body)
    assert (response.status_code, message in response.text) == (status, True), response.text


def test_only_operators_change_items(shop_artifacts: Path) -> None:
    with serving(shop_artifacts) as client:
        assert client.post("/v1/items", json={"items": [RED]}).status_code == 403
