"""What the page shows is what the API says, and the API says what PyTorch computes."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest
import torch

from export.graphs import PlainEncoder
from export.write import Description, write_artifact
from persona.contract import ItemId
from tests.conftest import TINY, TINY_ITEMS, random_encoder
from tests.page.browsing import Tab, tab
from tests.serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HISTORIES = {
    "news": ["frontpage", "news", "news", "sports"],
    "articles": ["Asteroid", "Sun", "Solar System"],
}
TINY_HISTORY = [3, 7, 7, 0, 19]


@pytest.fixture(scope="module")
def tiny(tiny_artifacts: Path) -> Iterator[str]:
    with serving(tiny_artifacts) as client:
        yield str(client.base_url)


def encoded(url: str, model: str, items: list[str], attention: str) -> Any:
    body = {"model": model, "histories": [items], "attention": attention}
    return httpx.post(f"{url}/v1/encode", json=body).json()["users"][0]


def shown(opened: Tab) -> tuple[list[float], list[float], list[float]]:
    """Pooled weights by head, all weights below the diagonal, and the embedding."""
    return (
        opened.numbers(".pooled-a svg .heat", "data-weight"),
        opened.numbers(".full-a svg .heat", "data-weight"),
        opened.numbers(".embedding-a svg rect", "data-value"),
    )


def flat(pooled: Any, full: Any) -> tuple[list[float], list[float]]:
    """The weights in the order of the page; (H, 1 + L) and (blocks, H, 1 + L, 1 + L)."""
    full = np.asarray(full)
    rows, columns = np.tril_indices(full.shape[-1])
    return np.ravel(pooled).tolist(), np.ravel(full[..., rows, columns]).tolist()


@pytest.mark.parametrize("model", list(HISTORIES))
def test_the_page_shows_the_weights_of_the_api(news: Tab, shipped: str, model: str) -> None:
    items = HISTORIES[model]
    news.open(model=model, version="1", items=items)
    user, full = (encoded(shipped, model, items, kind) for kind in ("pooled", "full"))
    start, weights = (np.array(user["attention"][name]) for name in ("start", "weights"))
    pooled = np.column_stack([start, weights])
    expected = (*flat(pooled, full["attention"]["blocks"]), user["embedding"])
    for found, wanted in zip(shown(news), expected, strict=True):
        assert found == pytest.approx(wanted, abs=1e-9)
    shares = news.numbers(".weight", "data-share")
    assert shares == pytest.approx(weights.mean(axis=0).tolist())


def test_the_page_shows_the_weights_of_pytorch(browser: "Browser", tiny: str) -> None:
    encoder = PlainEncoder(random_encoder(TINY, len(TINY_ITEMS)))
    clicks = torch.tensor([TINY_HISTORY])
    with torch.no_grad():
        embedding, pooled, full = encoder(clicks, torch.ones_like(clicks, dtype=torch.bool))
    expected = (*flat(pooled[0], full[0]), embedding[0].tolist())
    with tab(browser, tiny) as opened:
        opened.open(items=[TINY_ITEMS[row] for row in TINY_HISTORY])
        for found, wanted in zip(shown(opened), expected, strict=True):
            assert found == pytest.approx(wanted, abs=1e-5)


@pytest.mark.parametrize("model", list(HISTORIES))
def test_recommendations_and_reasons_are_those_of_the_api(
    news: Tab, shipped: str, model: str
) -> None:
    items = HISTORIES[model]
    body = {"model": model, "histories": [items], "k": 10, "with_reasons": True}
    user = httpx.post(f"{shipped}/v1/recommend", json=body).json()["users"][0]
    news.open(model=model, version="1", items=items, item=user["items"][2])
    assert news.numbers(".next-a [data-score]", "data-score") == pytest.approx(user["scores"])
    reasons = [user["reasons"]["base"][2], *user["reasons"]["weights"][2]]
    assert news.numbers(".why-a td[data-weight]", "data-weight") == pytest.approx(reasons)


def test_padding_is_shown_masked_and_changes_nothing(news: Tab) -> None:
    items = HISTORIES["news"]
    plain = shown(news.open(items=items))
    padded = shown(news.open(items=items, padding=3))
    assert padded == plain
    assert set(news.numbers("svg .masked", "data-weight")) == {0.0}
    assert news.page.locator(".chip.padding").count() == 3
    news.keep("padding")


def test_a_long_history_shows_what_the_model_reads(news: Tab) -> None:
    news.open(model="articles", version="1", items=["Sun", *["Moon"] * 54])
    assert news.page.get_by_text("5 older ones are left out").is_visible()
    assert len(news.numbers(".weight", "data-share")) == 50
    assert news.page.get_by_text("newest 48 of 51 positions").count() == 2
    news.keep("long")


def test_leaving_a_click_out_shows_what_changes(news: Tab, shipped: str) -> None:
    items = HISTORIES["news"]
    news.open(items=items, without=3)
    embeddings = [
        np.array(encoded(shipped, "news", one, "none")["embedding"]) for one in (items, items[:3])
    ]
    cosine = np.dot(*embeddings) / np.prod([np.linalg.norm(one) for one in embeddings])
    assert news.numbers(".cosine", "data-cosine") == pytest.approx([cosine])
    body = {"histories": [items, items[:3]], "candidates": ["sports"]}
    before, after = httpx.post(f"{shipped}/v1/score", json=body).json()["users"]
    row = news.page.locator("tr", has=news.page.get_by_role("rowheader", name="Sports", exact=True))
    change = row.locator("[data-change]").first.get_attribute("data-change")
    assert float(change or 0) == pytest.approx(after["scores"][0] - before["scores"][0])
    news.keep("without")


def test_two_histories_stand_side_by_side(news: Tab) -> None:
    news.open(items=["news"], compare="history", others=["weather", "travel"])
    assert (news.clicks("a"), news.clicks("b")) == (["News"], ["Weather", "Travel"])
    assert news.panel("full-b").locator("svg").count() == 4
    assert news.page.get_by_text("Cosine between the user embeddings").is_visible()
    news.keep("compare")


@pytest.mark.slow
def test_candidates_that_attend_to_the_clicks_show_their_shares(
    browser: "Browser", tmp_path: Path
) -> None:
    config = replace(TINY, attention="source_target", blocks=1)
    ids: list[ItemId] = list(range(100, 130))
    write_artifact(random_encoder(config, 30), ids, Description("films"), tmp_path)
    with serving(tmp_path) as client, tab(browser, str(client.base_url)) as opened:
        opened.open(items=[101, 102, 129])
        assert opened.page.get_by_text("the clicks have its attention to these shares").is_visible()
        shares = opened.numbers(".why-a td[data-weight]", "data-weight")
        assert sum(shares) == pytest.approx(1)
        opened.page.get_by_text("As ids").click()
        assert opened.page.get_by_label("Item ids").input_value() == "[101,102,129]"
