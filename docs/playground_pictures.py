"""Takes the pictures of the playground in the README and in docs/, from a real browser.

python -m docs.playground_pictures
"""

from pathlib import Path
from typing import Any

from tests.page.browsing import Tab, chromium, tab
from tests.serving import serving

DOCS = Path(__file__).parent
ARTIFACTS = DOCS.parent / "artifacts"
WIDTH = 1100
MARGIN = 12  # pixels below the last panel
HISTORY = {"model": "news", "version": "1", "items": ["frontpage", "news", "news", "sports"]}
# The state of the page, and the panel with which the picture ends.
PICTURES: dict[str, tuple[dict[str, Any], str]] = {
    "playground": (HISTORY, "next-a"),
    "playground-without": ({**HISTORY, "without": 3}, "changes"),
}


def take(opened: Tab, name: str) -> None:
    """The page in a state, down to the end of a panel."""
    state, last = PICTURES[name]
    opened.page.set_viewport_size({"width": WIDTH, "height": 1000})
    box = opened.open(**state).panel(last).bounding_box()
    size = {"x": 0, "y": 0, "width": WIDTH, "height": box["y"] + box["height"] + MARGIN}
    opened.page.screenshot(path=DOCS / f"{name}.png", clip=size, full_page=True)


def main() -> None:
    """Takes all pictures."""
    with (
        serving(ARTIFACTS) as client,
        chromium() as browser,
        tab(browser, str(client.base_url)) as opened,
    ):
        for name in PICTURES:
            take(opened, name)


if __name__ == "__main__":
    main()
