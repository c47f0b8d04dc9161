"""A browser and a service for a file of tests.

The browser is closed at the end of each file: while Playwright runs, no other test of the process
could start an event loop.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from tests.fences import ROOT
from tests.page.browsing import NoBrowser, Tab, chromium, tab
from tests.serving import serving

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    try:
        with chromium() as started:
            yield started
    except NoBrowser as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def shipped() -> Iterator[str]:
    """Address of a service with the artifacts that ship."""
    with serving(ROOT / "artifacts") as client:
        yield str(client.base_url)


@pytest.fixture
def news(browser: "Browser", shipped: str) -> Iterator[Tab]:
    """A tab of that service, with nothing opened."""
    with tab(browser, shipped) as opened:
        yield opened
