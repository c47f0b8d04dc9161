"""The benchmarks' pictures: drawn again from what is kept beside them."""

import json
from pathlib import Path

import pytest

from bench import pictures
from bench.pictures import Panel, Picture, draw, keep, plot, plots

WHERE_IT_GOES = pictures.PLOTS


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(pictures, "PLOTS", tmp_path)
    return tmp_path


def test_a_picture_is_drawn_again_without_measuring(folder: Path) -> None:
    shown = plot("cost", "clicks", "ms", {"graph": {10: 0.1, 100: 0.9}, "all": {10: 0.2, 100: 1}})
    drawn = (folder / "cost.png").read_bytes()
    (folder / "cost.png").unlink()
    plots()
    assert (folder / "cost.png").read_bytes() == drawn
    assert shown == "![ms over clicks](plots/cost.png)"


def test_logarithms_leave_zeros_out(folder: Path) -> None:
    plot("cost", "clicks", "ms", {"graph": {1: 0.0, 10: 0.1}})
    kept = json.loads((folder / "cost.json").read_text())
    assert kept["panels"][0]["lines"]["graph"] == [[10, 0.1]]


def test_panels_stand_below_one_another(folder: Path) -> None:
    panels = [Panel("MB", {"memory": [(0, 1), (1, 2)]}), Panel("", {"threads": [(0, 3), (1, 3)]})]
    keep("soak", Picture("minutes", panels), "memory and threads")
    draw("soak")
    assert (folder / "soak.png").read_bytes()[:4] == b"\x89PNG"


def test_every_picture_that_is_kept_is_drawn() -> None:
    kept = {path.stem for path in WHERE_IT_GOES.glob("*.json")}
    assert kept <= {path.stem for path in WHERE_IT_GOES.glob("*.png")}
