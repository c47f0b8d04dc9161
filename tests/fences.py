"""The code fences of Markdown pages."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Fence:
    """One fence of a page."""

    page: Path
    line: int  # of the page, where the fence's text begins
    language: str
    text: str


def pages() -> list[Path]:
    """What people read, README first."""
    top = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")]
    return [*top, *sorted((ROOT / "docs").rglob("*.md"))]


def fences(page: Path) -> Iterator[Fence]:
    """All fences of a page, from top to bottom."""
    text = page.read_text()
    for found in FENCE.finditer(text):
        indent, language, content = found.groups()
        line = text.count("\n", 0, found.start()) + 2
        yield Fence(page, line, language, re.sub(rf"^{indent}", "", content, flags=re.MULTILINE))


def commands(fence: Fence) -> list[str]:
    """The commands of a shell fence, those over several lines as one; comments are left out.

    In `console` they stand after `$ `, and what they print follows.
    """
    lines = fence.text.splitlines()
    if fence.language == "console":
        lines = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
    joined: list[str] = []
    for line in lines:
        if joined and joined[-1].endswith("\\"):
            joined[-1] = joined[-1].removesuffix("\\") + line.strip()
        elif joined and joined[-1].count("'") % 2:  # within quotes over several lines
            joined[-1] += f"\n{line}"
        elif line.strip() and not line.lstrip().startswith("#"):
            joined.append(line)
    return joined
