"""Reports of what each worker serves, one file each, so that any worker can answer for all."""

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel

from service.versions.choices import write_whole

REPORTS = "workers"


class Refusal(BaseModel):
    """A version that is not loaded, and the reason."""

    signature: int  # signature of its files; when they change, it is tried again
    reason: str


class Report(BaseModel):
    """The report of one worker."""

    process_id: int
    revision: int  # revision of the choices that it has followed
    shares: dict[
        str, dict[str, float]
    ]  # model -> version -> share of the requests that name no version
    loaded: dict[str, list[str]]  # model -> versions
    refused: dict[str, Refusal]  # by name, such as shop/2
    problems: dict[str, str]  # these and other problems, by name


def write_report(folder: Path, report: Report) -> None:
    """Writes this worker's report to the state folder."""
    reports = folder / REPORTS
    reports.mkdir(exist_ok=True)  # if no supervisor has created it
    write_whole(reports / f"{report.process_id}.json", report.model_dump_json().encode())


def forget_report(folder: Path) -> None:
    """Removes this worker's report, at its end."""
    (folder / REPORTS / f"{os.getpid()}.json").unlink(missing_ok=True)


def read_reports(folder: Path) -> list[Report]:
    """The reports of living workers; other reports are removed."""
    return list(_living((folder / REPORTS).glob("*.json")))


def _living(paths: Iterable[Path]) -> Iterable[Report]:
    for path in sorted(paths):
        if path.name.startswith("."):
            continue  # it is being written
        if not Path("/proc", path.stem).exists():
            path.unlink(missing_ok=True)
            continue
        with suppress(FileNotFoundError):
            yield Report.model_validate_json(path.read_bytes())
