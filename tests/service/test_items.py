"""`POST /v1/items/search`: names of items, and a search among them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.protocols.native.schema import ItemsResponse
from tests.fences import ROOT
from tests.serving import serving


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with serving(ROOT / "artifacts", max_k=20, max_items=3) as running:
        yield running


def items(client: httpx.Client, **body: Any) -> list[dict[str, Any]]:
    response = client.post("/v1/items/search", json=body)
    assert response.status_code == 200, response.text
    ItemsResponse.model_validate_json(response.content, strict=True)
    found: list[dict[str, Any]] = response.json()["items"]
    return found


def test_items_are_named_in_the_order_of_the_request(client: httpx.Client) -> None:
    found = items(client, items=["msn-sports", "chess", 7])
    assert [one["name"] for one in found] == ["MSN Sports", "chess", "7"]
    assert [one["known"] for one in found] == [True, False, False]


def test_a_search_finds_names_and_links(client: httpx.Client) -> None:
    first, *_ = items(client, model="articles", search="solar sys", k=2)
    assert first == {
        "item": "Solar System",
        "name": "Solar System",
        "link": "https://en.wikipedia.org/wiki/Solar%20System",
        "known": True,
    }


def test_an_empty_search_lists_the_catalogue(client: httpx.Client) -> None:
    assert len(items(client, k=17)) == 17


@pytest.mark.parametrize(
    ("body", "status", "message", "path"),
    [
        ({"k": 21}, 422, "k is 21, limit 20", ["k"]),
        ({"items": list("abcd")}, 422, "the request has 4 items, limit 3", ["items"]),
        ({"search": "x" * 257}, 422, "search: expected a string of at most 256", ["search"]),
        ({"model": "films"}, 404, "no model 'films'", ["model"]),
    ],
)
def test_a_refusal_names_the_place(
    client: httpx.Client, body: dict[str, Any], status: int, message: str, path: list[str]
) -> None:
    response = client.post("/v1/items/search", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["path"]) == (status, path)
    assert error["message"].startswith(message)


def test_the_card_of_a_model_has_its_examples(client: httpx.Client) -> None:
    cards = client.get("/v1/models").json()["models"]
    assert all(len(card["examples"]) >= 3 for card in cards)


def test_a_catalogue_without_names_is_searched_by_id(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts) as own:
        assert items(own, search="19")[0]["name"] == "item 19"
