"""Everybody can use the page: axe finds nothing, it fits a phone, it is dark where one likes."""

import subprocess
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from tests.fences import ROOT
from tests.page.browsing import AXE, Tab, tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow  # many seconds of a browser
STATES: dict[str, dict[str, Any]] = {
    "news": {},
    "empty": {"items": []},
    "unknown": {"items": ["news", "chess"], "padding": 2},
    "without": {"items": ["frontpage", "news"], "without": 1},
    "compare": {"items": ["news"], "compare": "history", "others": ["weather"]},
    "articles": {"model": "articles", "version": "1", "items": ["Sun", *["Moon"] * 30]},
}
PHONE = {"width": 360, "height": 740}


@pytest.fixture(params=["light", "dark"])
def themed(browser: "Browser", shipped: str, request: pytest.FixtureRequest) -> Iterator[Tab]:
    with tab(browser, shipped, color_scheme=request.param) as opened:
        yield opened


needs_axe = pytest.mark.skipif(
    not AXE.is_file(), reason="axe-core is not here: `make browser` fetches it with npm"
)


@needs_axe
@pytest.mark.parametrize("state", list(STATES))
def test_axe_finds_no_violation(themed: Tab, state: str) -> None:
    themed.open(**STATES[state])
    for summary in themed.page.locator("summary").all():
        summary.click()
    assert themed.violations() == []


@needs_axe
def test_axe_finds_none_while_searching(themed: Tab) -> None:
    themed.open(items=["news"]).page.get_by_label("Add an item").fill("sport")
    themed.page.locator("#found-a [role=option]").first.wait_for()
    assert themed.violations() == []


@pytest.mark.parametrize("state", ["news", "articles", "compare", "without"])
def test_it_fits_a_phone(browser: "Browser", shipped: str, state: str) -> None:
    with tab(browser, shipped, viewport=PHONE, has_touch=True, is_mobile=True) as phone:
        phone.open(**STATES[state])
        wide = "document.documentElement.scrollWidth"
        assert phone.page.evaluate(wide) <= PHONE["width"]
        phone.keep(f"phone-{state}")


def test_dark_mode_is_dark(browser: "Browser", shipped: str) -> None:
    with tab(browser, shipped, color_scheme="dark") as dark:
        dark.open(model="articles", version="1", items=["Sun", "Moon"], without=0)
        background = dark.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert max(map(int, background.strip("rgb()").split(","))) < 64
        dark.keep("dark")


def test_who_reads_with_ears_is_told_the_weights(news: Tab) -> None:
    news.open(items=["news", "sports"])
    label = news.panel("full-a").locator("svg").first.get_attribute("aria-label") or ""
    assert "block 1, head 1. 2 Sports looks most at" in label
    news.page.get_by_text("The numbers").click()
    table = news.panel("pooled-a").get_by_role("table")
    assert table.get_by_role("row").count() == 4
    assert table.get_by_role("columnheader", name="head 2").is_visible()


def test_what_is_copied_runs_as_it_is(browser: "Browser", shipped: str) -> None:
    with tab(browser, shipped, permissions=["clipboard-read", "clipboard-write"]) as opened:
        opened.open(items=["it's", "news"])
        texts = {}
        for name in ("link", "curl", "Python"):
            opened.page.get_by_role("button", name=f"Copy {name}").click()
            opened.page.get_by_text(f"{name} copied").wait_for()
            texts[name] = opened.page.evaluate("navigator.clipboard.readText()")
        assert texts["link"] == opened.page.url
    curl, python = ["bash", "-ec", texts["curl"]], [sys.executable, "-c", texts["Python"]]
    for command, said in ((curl, '"blocks":'), (python, "'news'")):
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        assert said in done.stdout
