"""The figures: `results.json`, written by the commands that measured them, and nothing by hand."""

import json
import platform
import subprocess
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

FOLDER = Path(__file__).parent
RESULTS = FOLDER / "results.json"
REPORT = FOLDER / "RESULTS.md"
TABLES = "tables"  # folder beside RESULTS.md, whose longer tables stand below the figures
PACKAGES = ("persona-encoder", "numpy", "onnxruntime", "fastapi", "torch", "lightning")


def record(
    name: str,
    value: float | Sequence[float],
    target: float | None,
    command: str,
    *,
    results: Path = RESULTS,
    report: Path = REPORT,
) -> None:
    """Writes a figure with what is needed to measure it again, and the table of all figures.

    Args:
        name: of the figure, units in it (`_ms`, `_megabytes`); a figure of that name is replaced.
        value: what was measured, or one value a seed.
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
        "commit": commit(),
        "versions": versions(),
    }
    figures = dict(sorted(figures.items()))
    _replace(results, json.dumps(figures, indent=1) + "\n")
    _replace(report, _report(figures, report.parent))


def record_table(name: str, table: str, pages: Sequence[Path] = ()) -> None:
    """Writes a Markdown table where RESULTS.md and pages of the documentation show it.

    Args:
        name: of the table; a table of that name is replaced.
        table: Markdown.
        pages: each holds the lines `<!-- name -->` and `<!-- end of name -->`; what lies between
            them becomes the table.

    Raises:
        ValueError: a page has not got those lines.
    """
    (FOLDER / TABLES).mkdir(exist_ok=True)
    _replace(FOLDER / TABLES / f"{name}.md", table)
    for page in pages:
        first, last = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        head, found, rest = page.read_text().partition(first)
        _, ended, tail = rest.partition(last)
        if not (found and ended):
            raise ValueError(f"{page}: no place for the table between {first.strip()} and {last}")
        _replace(page, f"{head}{first}\n{table}\n{last}{tail}")
    figures = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    _replace(REPORT, _report(figures, FOLDER))


def commit() -> str:
    """The checkout's commit, marked where other files than the results differ from it."""
    others = [f":!{name}" for name in ("results.json", "RESULTS.md", TABLES, "plots")]
    found = _git("rev-parse", "--short", "HEAD")
    return f"{found}-dirty" if _git("status", "--porcelain", "--", "..", *others) else found


def _git(*words: str) -> str:
    return subprocess.run(
        ["git", *words], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    ).stdout.strip()


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that figures depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # the extra `train` is not everywhere
            continue
    return found


def _report(figures: dict[str, dict[str, object]], folder: Path) -> str:
    rows = [
        f"| `{name}` | {_number(figure['value'])} | {_number(figure['target'])} "
        f"| `{figure['command']}` | {str(figure['date'])[:10]} | {figure['commit']} |"
        for name, figure in figures.items()
    ]
    head = ["| figure | value | target | measured by | on | commit |", f"|{' --- |' * 6}"]
    about = "Written by the commands that measured; results.json has the versions of packages too."
    tables = [path.read_text() for path in sorted((folder / TABLES).glob("*.md"))]
    return "\n".join(["# Results", "", about, "", *head, *rows, "", *tables])


def _number(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_number, value))
    return f"{value:.5g}" if isinstance(value, int | float) else ""


def _replace(path: Path, text: str) -> None:
    """Writes whole or not at all."""
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False) as file:
        file.write(text)
    written = Path(file.name)
    written.chmod(0o644)
    written.replace(path)
