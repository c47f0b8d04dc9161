"""Writes the tables and curves of the serving benchmarks into RESULTS.md."""

import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from bench.results import commit, record_table, versions


def tell(name: str, heading: str, text: str, pages: Sequence[Path] = ()) -> None:
    """Writes a section of RESULTS.md, with the day, the commit, the machine and the versions.

    Pages of the documentation that show it have a place for `serving_<name>`.
    """
    when = f"{datetime.now(UTC):%Y-%m-%d}, commit {commit()}, {machine()}."
    record_table(f"serving_{name}", f"## {heading}\n\n{text.strip()}\n\n{when}\n", pages)


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def machine() -> str:
    """Processor, cores that we may use, memory, system, and versions of packages."""
    facts = Path("/proc/cpuinfo").read_text()
    names = [line.partition(": ")[2] for line in facts.splitlines() if "model name" in line]
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    cores = len(os.sched_getaffinity(0))
    processor = names[0] if names else platform.machine()
    packages = ", ".join(f"{name} {number}" for name, number in versions().items())
    return f"{cores} cores of {processor}, {gigabytes:.0f} GB, Linux; {packages}"
