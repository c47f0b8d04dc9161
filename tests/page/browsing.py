"""A real Chromium for the tests of the page, and what they do with it again and again."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from tests.fences import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

NAMES = ("chromium", "chromium-browser", "google-chrome")
PICTURES = os.environ.get("PERSONA_TEST_PICTURES")  # folder for screenshots; none: not kept
AXE = ROOT / ".venv/page/node_modules/axe-core/axe.min.js"
PATIENCE_MS = 60_000  # ends a test that hangs


class NoBrowser(Exception):
    """The page cannot be driven here; the message says what is missing."""


@contextmanager
def chromium() -> Iterator["Browser"]:
    """The browser of the system's packages.

    Raises:
        NoBrowser: there is none, or no Playwright to drive it.
    """
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        raise NoBrowser("no Chromium here, the page is not driven: `make browser` installs one")
    try:
        from playwright.sync_api import sync_playwright
    except ModuleNotFoundError:
        raise NoBrowser("playwright is not installed, the page is not driven") from None
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found)
        yield browser
        browser.close()


@dataclass
class Tab:
    """A page of the playground, and what went wrong in it."""

    page: "Page"
    url: str
    errors: list[str] = field(default_factory=list)

    def open(self, **state: Any) -> "Tab":
        """Opens the page with a state in its address, and waits until everything is there."""
        said = {
            name: value if isinstance(value, str) and name != "item" else json.dumps(value)
            for name, value in state.items()
        }
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}/#{urlencode(said)}" if said else f"{self.url}/")
        return self.settled()

    def settled(self) -> "Tab":
        """Waits until nothing is being computed."""
        from playwright.sync_api import expect

        self.page.locator("section.panel[aria-busy=false]").first.wait_for()
        waiting = self.page.locator("[aria-busy=true], .waiting, [data-naming]")
        expect(waiting).to_have_count(0, timeout=PATIENCE_MS)
        return self

    def clicks(self, side: str = "a") -> list[str]:
        """The names on the chips, oldest first."""
        texts = self.page.locator(f"[id^=click-{side}-]").all_inner_texts()
        return [re.sub(r"^\d+\s*|\s*\d+ %$", "", text).strip() for text in texts]

    def chip(self, at: int, side: str = "a") -> Any:
        """The button of a click."""
        return self.page.locator(f"#click-{side}-{at}")

    def panel(self, name: str) -> Any:
        """A panel of results, such as `next-a`."""
        return self.page.locator(f"section.{name}")

    def numbers(self, selector: str, attribute: str) -> list[float]:
        """An attribute of all that a selector finds, as numbers."""
        script = f"all => all.map(one => Number(one.getAttribute('{attribute}')))"
        found: list[float] = self.page.locator(selector).evaluate_all(script)
        return found

    def violations(self) -> list[str]:
        """What axe finds. Its script comes in beside the policy, as a browser's own tools do."""
        self.page.evaluate(AXE.read_text())
        found = self.page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        return [f"{one['id']}: {one['nodes'][0]['html']}" for one in found]

    def keep(self, name: str) -> None:
        """Keeps a picture of the whole page, where somebody wants it."""
        if PICTURES:
            Path(PICTURES).mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=Path(PICTURES) / f"{name}.png", full_page=True)


@contextmanager
def tab(browser: "Browser", url: str, **options: Any) -> Iterator[Tab]:
    """A tab of its own; an error of a script, or a breach of the policy, fails the test."""
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    opened = Tab(context.new_page(), url.rstrip("/"))
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("console", lambda message: _note(opened.errors, message.text))
    yield opened
    context.close()
    assert not opened.errors


def _note(errors: list[str], text: str) -> None:
    if "Content Security Policy" in text or "TrustedType" in text:
        errors.append(text)
