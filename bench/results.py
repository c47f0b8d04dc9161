"""The figures: `results.json`, written by the commands that measured them, and nothing by hand."""

import json
import platform
import subprocess
import tempfile
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
REPORT = FOLDER / "RESULTS.md"
PACKAGES = ("persona-encoder", "numpy", "onnxruntime", "fastapi", "torch", "lightning")


def record(
    name: str,
    value: float,
    target: float | None,
    command: str,
    *,
    results: Path = RESULTS,
    report: Path = REPORT,
) -> None:
    """Writes a figure with what is needed to measure it again, and the table of all figures.

    Args:
        name: of the figure, units in it (`_ms`, `_megabytes`); a figure of that name is replaced.
        value: what was measured.
        target: what was aimed for, None where nothing was.
        command: that measures it, as typed in the root of the checkout.
        results: the JSON file.
        report: the same as a Markdown table.
    """
    figures = json.loads(results.read_text()) if results.exists() else {}
    figures[name] = {
        "value": value,
        "target": target,
        "command": command,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": _versions(),
    }
    figures = dict(sorted(figures.items()))
    _replace(results, json.dumps(figures, indent=1) + "\n")
    _replace(report, _table(figures))


def _commit() -> str:
    """The checkout's commit, marked where files differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude", "*"]
    return subprocess.run(
        command, cwd=FOLDER, capture_output=True, text=True, check=True
    ).stdout.strip()


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the extra `train` is not everywhere
            continue
    return found


def _table(figures: dict[str, dict[str, object]]) -> str:
    rows = [
        f"| `{name}` | {_number(figure['value'])} | {_number(figure['target'])} "
        f"| `{figure['command']}` | {str(figure['date'])[:10]} | {figure['commit']} |"
        for name, figure in figures.items()
    ]
    head = ["| figure | value | target | measured by | on | commit |", f"|{' --- |' * 6}"]
    about = "Written by the commands that measured; results.json has the versions of packages too."
    return "\n".join(["# Results", "", about, "", *head, *rows, ""])


def _number(value: object) -> str:
    return f"{value:.5g}" if isinstance(value, int | float) else ""


def _replace(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)
