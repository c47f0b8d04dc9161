"""The work folder beside an output: which parts are finished, and of which run.

    users.parquet.work/
        run.json        what the run is of: input, model, options
        part-00000/     a finished part: its files, counts.json, rejects.jsonl
        writing-…/      a part that is being written

A part is written under another name, and its folder renamed at the end. A folder cannot be renamed
to one with files in it: so a part is finished once, whoever of several writers comes first.
"""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from persona.scoring.errors import FileError, RunChanged
from persona.scoring.scorer import Counts, ScoredPart

RUN, COUNTS, LOCK = "run.json", "counts.json", "lock"
Run = Mapping[str, Mapping[str, Any]]  # input, model and options; as JSON


class Journal:
    """The finished parts of a run."""

    def __init__(self, folder: Path, run: Run) -> None:
        self.folder, self.run = folder, run
        self.counts = {
            int(part.name.removeprefix("part-")): Counts(**json.loads((part / COUNTS).read_bytes()))
            for part in folder.glob("part-*")
        }

    def commit(self, part: ScoredPart) -> None:
        """Writes a part, whole or not at all; one that is already there stays as it is.

        Raises:
            FileError: the part cannot be written.
        """
        counts = json.dumps(asdict(part.counts)).encode()
        with disk(self.folder):
            writing = Path(mkdtemp(prefix="writing-", dir=self.folder))
            try:
                for name, content in {**part.files, COUNTS: counts}.items():
                    _write(writing / name, content)
                sync(writing)
                _rename(writing, self.path(part.number))
                sync(self.folder)
            finally:
                shutil.rmtree(writing, ignore_errors=True)
        self.counts[part.number] = part.counts

    def path(self, number: int) -> Path:
        """The folder of a finished part."""
        return self.folder / f"part-{number:05}"

    def remove(self) -> None:
        """Removes the work folder; a run that is ended here encodes again what is gone."""
        with disk(self.folder):
            _clear(self.folder, everything=True)
            shutil.rmtree(self.folder)


@contextmanager
def journal_in(folder: Path, run: Run, *, restart: bool = False) -> Iterator[Journal]:
    """Begins a run, or goes on with one.

    Args:
        folder: where the parts are kept; made if it is not there.
        run: what the run is of.
        restart: forget what is there.

    Raises:
        RunChanged: the folder belongs to another run.
        FileError: another process works in the folder, or it cannot be written.
    """
    run = json.loads(json.dumps(run))  # tuples become lists, as in the file
    with disk(folder):
        folder.mkdir(exist_ok=True)
        lock = (folder / LOCK).open("wb")
    with lock:
        _lock(lock.fileno(), folder)
        with disk(folder):
            _clear(folder, everything=restart or not (folder / RUN).exists())
            if (folder / RUN).exists():
                _check_same(json.loads((folder / RUN).read_bytes()), run, folder)
            else:
                _write(folder / f"{RUN}.new", json.dumps(run, indent=1).encode())
                (folder / f"{RUN}.new").rename(folder / RUN)
        yield Journal(folder, run)


def _lock(file: int, folder: Path) -> None:
    """Keeps other processes out until this one ends, where the file system can do that."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FileError(f"{folder}: another process scores into it") from error
    except OSError:
        pass  # a file system without locks; parts are still finished once


def _clear(folder: Path, *, everything: bool) -> None:
    """Removes what a run that was killed has left half done, or all that it has left.

    This may be killed, too: a part loses its name first, and the parts go before their run.
    """
    for part in folder.glob("part-*") if everything else ():
        part.rename(mkdtemp(prefix="writing-", dir=folder))
    for path in folder.glob("writing-*"):
        shutil.rmtree(path, ignore_errors=True)
    if everything:
        (folder / RUN).unlink(missing_ok=True)


def _check_same(before: Run, now: Run, folder: Path) -> None:
    changes = [
        f"{part} {name}: was {before[part].get(name)}, is {now[part].get(name)}"
        for part in now
        for name in {**before[part], **now[part]}
        if before[part].get(name) != now[part].get(name)
    ]
    if changes:
        listed = "\n  ".join(changes[:10])
        raise RunChanged(
            f"{folder} holds the finished parts of another run:\n  {listed}\n"
            "Run what it was begun with to go on, or begin anew with --restart"
        )


@contextmanager
def disk(place: Path) -> Iterator[None]:
    """Raises `FileError` where writing fails; the message names the place."""
    try:
        yield
    except OSError as error:
        message = f"{error.filename or place}: {error.strerror or error}"
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            message += "; finished parts are kept: make room, and the same command goes on"
        raise FileError(message) from error


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _rename(writing: Path, part: Path) -> None:
    try:
        writing.rename(part)
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST}:  # somebody was faster
            raise


def sync(folder: Path) -> None:
    """Makes the names in a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
