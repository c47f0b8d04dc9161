"""The size of the tree, and what its tests cost: lines of code, words of documentation, CPU."""

import resource
import subprocess
import time
from pathlib import Path

import typer

from bench.results import record

ROOT = Path(__file__).resolve().parents[1]
ROOMS = ("persona", "service", "model", "export")
LINES_BEFORE = 11_487  # at commit af0470f, in client, export, model, persona and service


def tree() -> None:
    """Lines of Python outside of tests, bench and docs, and words of docs/."""
    command = "python -m bench tree"
    code = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    lines = sum(len(path.read_text().splitlines()) for path in code)
    words = sum(len(path.read_text().split()) for path in (ROOT / "docs").rglob("*.md"))
    typer.echo(f"{lines:,} lines of code, {words:,} words in docs/")
    record("code_lines", lines, LINES_BEFORE, command)
    record("docs_words", words, 12_000, command)


def tests() -> None:
    """CPU minutes and minutes of `make test`, of all its processes."""
    command = "python -m bench tests"
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    subprocess.run(["make", "test"], cwd=ROOT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    minutes = (time.monotonic() - started) / 60
    cpu = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60
    typer.echo(f"{cpu:.1f} CPU minutes in {minutes:.1f} minutes")
    record("test_cpu_minutes", round(cpu, 2), 10, command)
    record("test_minutes", round(minutes, 2), 6, command)
