"""Figures are kept with what is needed to measure them again."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.results import record, record_table


def kept(folder: Path, name: str, value: float | Sequence[float]) -> None:
    files = {"results": folder / "results.json", "report": folder / "RESULTS.md"}
    record(name, value, None, "python -m bench x", **files)


def test_a_figure_is_kept_with_command_date_commit_and_versions(tmp_path: Path) -> None:
    kept(tmp_path, "b_ms", 1.5)
    figure = json.loads((tmp_path / "results.json").read_text())["b_ms"]
    assert figure.keys() == {"value", "target", "command", "date", "commit", "versions"}
    assert (figure["value"], figure["command"]) == (1.5, "python -m bench x")
    assert "onnxruntime" in figure["versions"]


def test_figures_are_sorted_and_a_new_one_replaces_its_namesake(tmp_path: Path) -> None:
    for name, value in (("b_ms", 1.0), ("a_ms", 2.0), ("b_ms", 3.0)):
        kept(tmp_path, name, value)
    figures = json.loads((tmp_path / "results.json").read_text())
    assert [(name, figure["value"]) for name, figure in figures.items()] == [
        ("a_ms", 2.0),
        ("b_ms", 3.0),
    ]


def test_the_report_has_a_row_for_each_figure_and_nothing_else_is_left(tmp_path: Path) -> None:
    kept(tmp_path, "a_ms", 2.0)
    assert "| `a_ms` | 2 |" in (tmp_path / "RESULTS.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["RESULTS.md", "results.json"]


def test_a_figure_of_several_seeds_is_a_list(tmp_path: Path) -> None:
    kept(tmp_path, "ndcg10_seeds", (0.1, 0.25))
    assert json.loads((tmp_path / "results.json").read_text())["ndcg10_seeds"]["value"] == [
        0.1,
        0.25,
    ]
    assert "| `ndcg10_seeds` | 0.1, 0.25 |" in (tmp_path / "RESULTS.md").read_text()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that tables are kept in."""
    monkeypatch.setattr("bench.results.FOLDER", tmp_path)
    monkeypatch.setattr("bench.results.RESULTS", tmp_path / "results.json")
    monkeypatch.setattr("bench.results.REPORT", tmp_path / "RESULTS.md")
    return tmp_path


def test_a_table_replaces_its_namesake_on_its_page_and_in_the_report(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("before\n<!-- kinds -->\n<!-- end of kinds -->\nafter\n")
    for value in (1, 2):
        record_table("kinds", f"| {value} |\n", [page])
    assert page.read_text() == ("before\n<!-- kinds -->\n\n| 2 |\n\n<!-- end of kinds -->\nafter\n")
    kept(folder, "a_ms", 2.0)  # a later figure keeps the table
    assert (folder / "RESULTS.md").read_text().endswith("| 2 |\n")


def test_a_page_without_a_place_for_the_table_is_named(folder: Path) -> None:
    page = folder / "page.md"
    page.write_text("<!-- kinds -->\n")
    with pytest.raises(ValueError, match=r"page\.md: no place for the table"):
        record_table("kinds", "| 1 |\n", [page])
