"""Histories are built by search, examples, ids, mouse, touch and keyboard, and links keep them."""

from typing import TYPE_CHECKING

import pytest

from tests.page.browsing import Tab, tab

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.slow  # many seconds of a browser
FOUR = ["frontpage", "news", "weather", "sports"]
NAMED = ["Front page", "News", "Weather", "Sports"]


def test_it_begins_with_the_first_example_of_the_default_model(news: Tab) -> None:
    news.open()
    assert news.clicks() == ["Front page", "News", "News", "Sports"]
    assert news.panel("next-a").locator("li").count() == 10
    news.keep("news")


def test_an_example_of_the_artifact_is_taken(news: Tab) -> None:
    news.open().page.get_by_label("Example", exact=True).select_option(label="Before a journey")
    news.settled()
    assert news.clicks() == ["Front page", "Weather", "Local news", "Travel"]


def test_items_are_found_by_name_while_one_types(news: Tab) -> None:
    news.open(model="articles", version="1", items=["Sun"])
    box = news.page.get_by_label("Add an item")
    box.press_sequentially("solar sys")
    news.page.get_by_role("option", name="Solar System", exact=True).click()
    news.settled()
    assert news.clicks() == ["Sun", "Solar System"]


def test_enter_takes_the_best_item_however_quickly_it_is_pressed(news: Tab) -> None:
    news.open(items=["news"])
    news.page.get_by_label("Add an item").press_sequentially("msn sp\n")
    news.page.locator("#click-a-1").wait_for()
    assert news.clicks() == ["News", "MSN Sports"]


def test_an_item_that_nobody_knows_is_marked(news: Tab) -> None:
    news.open(items=["news"])
    box = news.page.get_by_label("Add an item")
    box.fill("chess")
    news.page.get_by_text("No item has “chess” in its name").wait_for()
    box.press("Enter")
    news.settled()
    news.page.locator(".chip.unknown").wait_for()
    assert "chess" in news.page.locator(".chip.unknown").inner_text()


@pytest.mark.parametrize(
    "text",
    ["frontpage, news", "frontpage\nnews\n", '["frontpage", "news"]'],
    ids=["commas", "lines", "JSON"],
)
def test_ids_are_pasted(news: Tab, text: str) -> None:
    news.open(items=["sports"]).page.get_by_text("As ids").click()
    news.page.get_by_label("Item ids").fill(text)
    news.settled()
    assert news.clicks() == ["Front page", "News"]


def test_numbers_pasted_as_json_stay_numbers(news: Tab) -> None:
    news.open(items=[7, "7"]).page.get_by_text("As ids").click()
    assert news.page.get_by_label("Item ids").input_value() == '[7,"7"]'


def test_buttons_move_repeat_and_remove_a_click(news: Tab) -> None:
    news.open(items=FOUR)
    news.chip(1).click()
    news.page.get_by_role("button", name="Later", exact=True).click()
    assert news.settled().clicks() == ["Front page", "Weather", "News", "Sports"]
    news.page.get_by_role("button", name="Repeat").click()
    assert news.settled().clicks() == ["Front page", "Weather", "News", "News", "Sports"]
    news.page.get_by_role("button", name="Remove", exact=True).click()
    news.page.get_by_role("button", name="Remove click 1, Front page").click()
    assert news.settled().clicks() == ["Weather", "News", "Sports"]
    news.page.get_by_role("button", name="Clear").click()
    assert news.settled().clicks() == []


def test_a_click_is_dragged_by_mouse(news: Tab) -> None:
    news.open(items=FOUR)
    news.chip(0).hover()
    news.page.mouse.down()
    news.chip(2).hover()
    news.page.mouse.up()
    assert news.settled().clicks() == ["News", "Weather", "Front page", "Sports"]


def test_a_click_is_dragged_by_finger(browser: "Browser", shipped: str) -> None:
    with tab(browser, shipped, has_touch=True) as touched:
        touched.open(items=FOUR)
        start, end = (touched.chip(at).bounding_box() for at in (0, 2))
        session = touched.page.context.new_cdp_session(touched.page)

        def touch(kind: str, *points: tuple[float, float]) -> None:
            message = {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
            session.send("Input.dispatchTouchEvent", message)

        y = start["y"] + 10
        touch("touchStart", (start["x"] + 20, y))
        for x in range(int(start["x"]) + 24, int(end["x"]) + 20, 4):
            touch("touchMove", (x, y))
        touch("touchEnd")
        assert touched.settled().clicks() == ["News", "Weather", "Front page", "Sports"]


def test_the_keyboard_alone_builds_a_history(news: Tab) -> None:
    news.open(items=FOUR)
    press = news.page.keyboard.press
    news.chip(0).focus()
    for key in ("Shift+ArrowRight", "Shift+ArrowRight", "ArrowRight", "Delete"):
        press(key)
        news.settled()
    assert news.clicks() == ["News", "Weather", "Front page"]
    assert news.page.evaluate("document.activeElement.id") == "click-a-2"
    news.page.get_by_label("Add an item").focus()
    news.page.locator("#found-a [role=option]").nth(1).wait_for()
    press("ArrowDown")
    press("Enter")
    news.settled()
    assert news.clicks()[-1] == "News"


def test_tab_reaches_every_control(news: Tab) -> None:
    news.open(items=["news", "sports"])
    reached = set()
    for _ in range(60):
        news.page.keyboard.press("Tab")
        script = "e => (e.id || e.textContent || e.ariaLabel || '').trim().slice(0, 30)"
        reached.add(news.page.locator(":focus").first.evaluate(script))
        if "Copy Python" in reached:
            break
    assert {"search-a", "click-a-0", "Later", "Remove", "Copy link", "Copy Python"} <= reached


def test_a_link_reproduces_the_state(news: Tab, browser: "Browser", shipped: str) -> None:
    news.open(items=FOUR)
    news.page.get_by_label("only items not yet clicked").check()
    news.panel("next-a").locator("button").nth(3).click()
    news.chip(1).click()
    news.page.get_by_role("button", name="What if it were not there?").click()
    news.settled()
    with tab(browser, shipped) as other:
        other.page.goto(news.page.url)
        other.settled()
        chosen = ".next [aria-pressed=true] .name"
        assert other.clicks() == NAMED
        assert other.page.get_by_label("only items not yet clicked").is_checked()
        assert other.page.locator(chosen).inner_text() == news.page.locator(chosen).inner_text()
        assert other.page.get_by_text("What changes: all clicks → without 2 News").is_visible()


@pytest.mark.parametrize("items", ["nonsense", "{}", "[1.5]", "[[]]"])
def test_a_broken_link_gives_an_empty_history(news: Tab, items: str) -> None:
    news.open(items=items, padding="x", without="9")
    assert news.clicks() == []
    assert news.panel("next-a").locator("li").count() == 10
