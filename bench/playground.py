"""The page at `/`: what it transfers, how soon it shows something, what axe finds in it."""

import statistics
import subprocess
from pathlib import Path
from typing import Any

import typer

from bench.results import record
from tests.page.browsing import Tab, chromium, tab
from tests.serving import running_service

ROOT = Path(__file__).resolve().parents[1]
ROUNDS = 5
MOST_KILOBYTES, LATEST_MS = 150, 1000
STATES: tuple[dict[str, Any], ...] = (
    {},
    {"items": []},
    {"items": ["frontpage", "news"], "without": 1, "padding": 2},
    {"items": ["news"], "compare": "history", "others": ["weather"]},
    {"model": "articles", "version": "1", "items": ["Asteroid", "Sun", "Nowhere"]},
)
# The first useful paint: the frame in which the weights of the clicks are there, since the
# navigation began.
FIRST_PAINT = """() => new Promise((resolve) => {
  const look = () => document.querySelector(".pooled-a svg")
    ? requestAnimationFrame(() => setTimeout(() => resolve(performance.now())))
    : setTimeout(look, 2);
  look();
})"""
TRANSFERRED = """() => performance.getEntries().filter((one) => "transferSize" in one)
  .reduce((sum, one) => sum + one.transferSize, 0)"""


def playground() -> None:
    """Median of five first visits over loopback, each with empty caches."""
    command = "python -m bench playground"
    subprocess.run(["make", "browser"], cwd=ROOT, check=True)
    with running_service(ROOT / "artifacts") as url, chromium() as browser:
        paints, kilobytes = [], []
        for _ in range(ROUNDS):
            with tab(browser, url) as opened:
                opened.page.goto(opened.url, wait_until="commit")
                paints.append(opened.page.evaluate(FIRST_PAINT))
                opened.settled()
                kilobytes.append(opened.page.evaluate(TRANSFERRED) / 1000)
        violations = []
        for scheme in ("light", "dark"):
            with tab(browser, url, color_scheme=scheme) as opened:
                violations += [found for state in STATES for found in _violations(opened, state)]
    for found in violations:
        typer.echo(found)
    typer.echo(f"{max(kilobytes):.1f} kB, first paint after {statistics.median(paints):.0f} ms")
    record("playground_kilobytes", round(max(kilobytes), 1), MOST_KILOBYTES, command)
    record("playground_first_paint_ms", round(statistics.median(paints)), LATEST_MS, command)
    record("playground_axe_violations", len(violations), 0, command)


def _violations(opened: Tab, state: dict[str, Any]) -> list[str]:
    opened.open(**state)
    for summary in opened.page.locator("summary").all():
        summary.click()
    return opened.violations()
