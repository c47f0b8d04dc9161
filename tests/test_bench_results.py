"""Figures are kept with what is needed to measure them again."""

import json
from pathlib import Path

from bench.results import record


def kept(folder: Path, name: str, value: float) -> None:
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
