"""Makes the output of the finished parts: one file of each kind, or a folder of part files."""

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from persona.scoring.formats import FORMATS, Format, copy
from persona.scoring.journal import Journal, disk, sync
from persona.scoring.output import REJECTS, data_file
from persona.scoring.scorer import FormatName


@dataclass(frozen=True)
class Target:
    """Where the output goes."""

    path: Path  # a file, or a folder of part files
    is_folder: bool
    format: FormatName
    rejects: Path

    @property
    def work(self) -> Path:
        """The folder of the finished parts, until all are."""
        return self.beside(".work")

    def beside(self, suffix: str) -> Path:
        """A file beside the output."""
        return self.path.with_name(f"{self.path.name}{suffix}")

    def files(self) -> dict[str, Path]:
        """The output's files by suffix; the first has the embeddings."""
        first, *others = FORMATS[self.format].suffixes
        stem = self.path.name.removesuffix(first)
        return {first: self.path} | {one: self.path.with_name(stem + one) for one in others}


def assemble(journal: Journal, target: Target, summary: Mapping[str, Any]) -> None:
    """Writes the output, whole or not at all; the finished parts stay.

    Args:
        journal: of a run whose parts are all finished.
        target: where the output goes.
        summary: of the run, for a file beside it.

    Raises:
        FileError: a file cannot be written.
    """
    folders = [journal.path(number) for number in sorted(journal.counts)]
    output, work = FORMATS[target.format], journal.folder
    with disk(target.path):
        ready = [
            (_rejects(folders, _near(target.rejects, work)), target.rejects),
            (_summary(summary, work / "summary.json"), target.beside(".run.json")),
        ]
        if target.is_folder:
            ready.append((_folder(folders, output, work / "joined"), target.path))
        else:
            for suffix, path in reversed(target.files().items()):
                parts = [folder / data_file(suffix) for folder in folders]
                join = partial(output.join, suffix, parts)
                ready.append((_written(work / f"joined{suffix}", join), path))
        for made, final in ready:
            if final.is_dir():  # of a run that was killed right here
                shutil.rmtree(work / "replaced", ignore_errors=True)
                final.rename(work / "replaced")
            made.replace(final)
            sync(final.parent)


def _written(path: Path, write: Callable[[BinaryIO], object]) -> Path:
    with path.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    return path


def _near(final: Path, work: Path) -> Path:
    """Where a file can be written that is then renamed to `final`: on the same file system."""
    if final.parent.resolve() == work.parent.resolve():
        return work / final.name
    return final.with_name(f".{final.name}.writing")


def _rejects(folders: Sequence[Path], path: Path) -> Path:
    return _written(path, partial(copy, [folder / REJECTS for folder in folders]))


def _summary(summary: Mapping[str, Any], path: Path) -> Path:
    content = json.dumps(summary, indent=1).encode() + b"\n"
    return _written(path, lambda file: file.write(content))


def _folder(folders: Sequence[Path], output: Format, joined: Path) -> Path:
    """A folder with the files of the parts, which take no room of their own."""
    shutil.rmtree(joined, ignore_errors=True)
    joined.mkdir()
    for folder in folders:
        for suffix in output.suffixes:
            os.link(folder / data_file(suffix), joined / f"{folder.name}{suffix}")
    sync(joined)
    return joined
