"""Learning curves of a run as a picture."""

import csv
from pathlib import Path

import matplotlib.pyplot as plt


def read_curve(run: Path, name: str) -> dict[int, float]:
    """A logged value by epoch, counted from 1; what a resumption ran again replaces the old."""
    curve = {}
    versions = (run / "curves").glob("version_*/metrics.csv")
    for path in sorted(versions, key=lambda path: int(path.parent.name.removeprefix("version_"))):
        with path.open() as file:
            for row in csv.DictReader(file):
                if row.get(name):
                    curve[int(row["epoch"]) + 1] = float(row[name])
    return curve


def draw_learning_curve(run: Path, monitor: str) -> Path:
    """Draws loss and monitor by epoch into `learning_curve.png`."""
    figure, left = plt.subplots(figsize=(7, 4), layout="constrained")
    axes = ((left, "loss", "C0"), (left.twinx(), monitor, "C1"))
    for axis, name, colour in axes:
        curve = read_curve(run, name)
        axis.plot(list(curve.keys()), list(curve.values()), color=colour, marker=".")
        axis.set_ylabel(name, color=colour)
    left.set_xlabel("epoch")
    path = run / "learning_curve.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
