"""docs/attention.md: its tests exist, and its figures come from the commands that it names."""

import re
from pathlib import Path

from tests.fences import ROOT

PAGE = (ROOT / "docs" / "attention.md").read_text()


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    sources = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    assert len(named) > 10
    assert not [name for name in named if f"def {name}(" not in sources]


def test_the_pictures_are_small_and_all_on_the_page() -> None:
    pictures = sorted(path for path in (ROOT / "docs").glob("attention-*") if path.is_file())
    assert [picture.name for picture in pictures] == sorted(
        re.findall(r"\]\((.*?(?:svg|png))\)", PAGE)
    )
    assert not [picture.name for picture in pictures if picture.stat().st_size > 150_000]


def test_the_tables_are_those_that_were_measured() -> None:
    tables: list[Path] = [
        ROOT / "bench" / "tables" / f"{n}.md" for n in ("attention-kinds", "pooling")
    ]
    pages = PAGE + (ROOT / "docs" / "decisions" / "0007-pooling.md").read_text()
    assert not [table.name for table in tables if table.exists() and table.read_text() not in pages]
