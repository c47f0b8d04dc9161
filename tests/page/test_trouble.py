"""Slow, full, starting, restarted, locked: the page says so where it belongs, and goes on."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from persona.artifact.format import ITEM_TITLES
from service.keys import add_key
from tests.fences import ROOT
from tests.page.browsing import Tab, tab
from tests.serving import free_port, serving
from tests.versions import add_version, sign

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Route

pytestmark = pytest.mark.slow  # many seconds of a browser
ARTIFACTS = ROOT / "artifacts"


class Gate:
    """Holds the requests to a path back until they are let through; the transport, not the page."""

    def __init__(self, opened: Tab, path: str) -> None:
        self._held: list[Route] = []
        self._is_open = False
        opened.page.route(f"**{path}", self._take)

    def _take(self, route: "Route") -> None:
        if self._is_open:
            route.continue_()
        else:
            self._held.append(route)

    def open(self) -> None:
        self._is_open = True
        for route in self._held:
            route.continue_()


def test_a_slow_answer_blocks_nothing_and_no_older_one_is_shown(news: Tab) -> None:
    news.open(items=["news"])
    first = news.panel("next-a").inner_text()
    gate = Gate(news, "/v1/recommend")
    news.page.get_by_role("button", name="Repeat").click()
    news.panel("next-a").get_by_text("computing").wait_for()
    assert news.panel("next-a").locator("li").count() == 0
    assert news.panel("why-a").locator("td").count() == 0
    news.page.locator(".pooled-a[aria-busy=false]").wait_for()  # what is not slow is there
    news.keep("slow")
    news.page.get_by_role("button", name="Repeat").click()
    gate.open()
    news.settled()
    assert news.clicks() == ["News"] * 3
    assert news.panel("next-a").inner_text() != first


def test_the_answer_to_an_older_question_never_comes_up(news: Tab, shipped: str) -> None:
    news.open(items=["weather"])
    expected = news.panel("next-a").inner_text()
    news.open(items=["news"])
    gate = Gate(news, "/v1/recommend")
    box = news.page.get_by_text("As ids")
    box.click()
    ids = news.page.get_by_label("Item ids")
    for text in ("sports", "travel", "weather"):
        ids.fill(text)
        news.panel("next-a").get_by_text("computing").wait_for()
    gate.open()
    news.settled()
    assert news.panel("next-a").inner_text() == expected


def test_a_full_service_is_asked_again_when_it_says(news: Tab) -> None:
    full = {"error": {"code": "overloaded", "message": "the queue takes 9,000 ms", "path": []}}
    asked: list[Route] = []

    def refuse_once(route: "Route") -> None:
        asked.append(route)
        if len(asked) > 1:
            route.continue_()
        else:
            route.fulfill(status=429, headers={"retry-after": "3"}, body=json.dumps(full))

    news.page.route("**/v1/recommend", refuse_once)
    news.page.goto(f'{news.url}/#items=["news"]')
    problem = news.panel("next-a").get_by_role("alert")
    problem.wait_for()
    assert "the queue takes 9,000 ms. The page asks again in 3 s." in problem.inner_text()
    news.keep("full")
    problem.wait_for(state="detached")
    assert news.settled().panel("next-a").locator("li").count() == 10


def test_a_limit_of_the_key_is_told_and_not_tried_again_and_again(
    browser: "Browser", tmp_path: Path
) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop", limits=["3/day"])
    with serving(ARTIFACTS, keys_file=file) as client, tab(browser, str(client.base_url)) as opened:
        opened.page.goto(opened.url)
        opened.page.get_by_label("API key").fill(key)
        opened.page.keyboard.press("Enter")
        problem = opened.page.get_by_role("alert").first
        problem.wait_for()
        assert "the limit of the key 'shop' is 3 per 1 day" in problem.inner_text()
        assert "The page asks again" not in problem.inner_text()
        assert problem.get_by_role("button", name="Ask again now").is_visible()


def test_a_service_that_is_starting_is_waited_for(browser: "Browser", tmp_path: Path) -> None:
    port = free_port()
    with tab(browser, f"http://127.0.0.1:{port}") as opened:
        with serving(tmp_path / "nothing", on_port=port):
            opened.page.goto(opened.url)
            opened.page.get_by_role("alert").get_by_text("no such folder").wait_for()
            opened.keep("not-ready")
        with serving(ARTIFACTS, on_port=port):
            opened.settled()
            assert opened.clicks()[0] == "Front page"


def test_a_restart_is_noticed_and_survived(browser: "Browser") -> None:
    port = free_port()
    with tab(browser, f"http://127.0.0.1:{port}") as opened:
        with serving(ARTIFACTS, on_port=port):
            opened.open(items=["news"])
        opened.page.get_by_role("button", name="Repeat").click()
        problem = opened.page.get_by_role("alert").get_by_text("The service does not answer.")
        problem.wait_for()
        opened.panel("next-a").get_by_text("waiting for the service").wait_for()
        assert opened.panel("next-a").locator("li").count() == 0
        opened.keep("gone")
        with serving(ARTIFACTS, on_port=port):
            problem.wait_for(state="detached")
            opened.settled()
        assert opened.clicks() == ["News", "News"]


def test_a_key_is_asked_for_where_keys_are_on(browser: "Browser", tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    key = add_key(file, "shop")
    with serving(ARTIFACTS, keys_file=file) as client, tab(browser, str(client.base_url)) as locked:
        locked.page.goto(locked.url)
        field = locked.page.get_by_label("API key")
        field.fill("wrong")
        field.press("Enter")
        locked.page.get_by_text("The key is not known").wait_for()
        locked.keep("key")
        field.fill(key)
        field.press("Enter")
        locked.settled()
        assert locked.clicks()[0] == "Front page"
        locked.page.get_by_text("curl", exact=True).click()
        code = locked.page.locator("pre").first.inner_text()
        assert "$PERSONA_KEY" in code
        assert key not in locked.page.content()


def test_a_limit_is_named_where_it_is_passed(browser: "Browser") -> None:
    with (
        serving(ARTIFACTS, max_attention_values=20) as client,
        tab(browser, str(client.base_url)) as tight,
    ):
        tight.page.goto(f'{tight.url}/#items=["news","sports"]')
        tight.panel("full-a").get_by_role("alert").wait_for()
        assert "limit 20" in tight.panel("full-a").get_by_role("alert").inner_text()
        assert tight.panel("pooled-a").locator("svg").count() == 1


def test_a_model_that_is_not_there_is_named(news: Tab) -> None:
    news.page.goto(f'{news.url}/#model=films&version=1&items=["news"]')
    news.page.get_by_text("The service has no version 1 of “films”").wait_for()
    news.page.get_by_label("Model", exact=True).select_option("articles")
    news.settled()
    assert news.clicks()[0] == "Asteroid"


HOSTILE = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>"


def test_a_name_with_markup_is_text(
    browser: "Browser", tiny_artifact: Path, tmp_path: Path
) -> None:
    folder = add_version(tiny_artifact, tmp_path, "tiny", "1")
    names = [HOSTILE, *(f"name {number}" for number in range(1, 20))]
    (folder / ITEM_TITLES).write_text(json.dumps({"names": names}))
    sign(folder)
    with serving(tmp_path) as client, tab(browser, str(client.base_url)) as opened:
        opened.open(items=["item 0", HOSTILE, "item 1"], item="item 0")
        assert opened.clicks() == [HOSTILE, f"{HOSTILE} unknown", "name 1"]
        opened.page.get_by_label("Add an item").fill("img")
        opened.page.get_by_role("listbox").get_by_text(HOSTILE).wait_for()
        assert opened.page.locator("img, main script").count() == 0
        assert opened.page.title() == "Persona: what it looked at"
        opened.keep("markup")


def test_two_versions_of_a_model_are_compared(
    browser: "Browser", tiny_artifact: Path, other_tiny_artifact: Path, tmp_path: Path
) -> None:
    add_version(tiny_artifact, tmp_path, "tiny", "1")
    add_version(other_tiny_artifact, tmp_path, "tiny", "2")
    with serving(tmp_path, admin=True) as client, tab(browser, str(client.base_url)) as opened:
        assert client.post("/v1/models/tiny/load", json={"version": "1"}).status_code == 200
        opened.open(items=["item 3", "item 4"])
        assert opened.page.get_by_label("Version", exact=True).input_value() == "2"
        opened.page.get_by_label("Compare", exact=True).select_option("version")
        opened.settled()
        assert opened.page.get_by_text("What changes: version 2 → version 1").is_visible()
        (cosine,) = opened.numbers(".cosine", "data-cosine")
        assert -1 <= cosine < 0.999
        opened.keep("versions")
