"""Copies of artifacts, which workers map in place of files that others may change.

Truncating a mapped file (`cp`, an editor, a full disk) kills the processes that map it with SIGBUS,
and writing into it changes their answers. Checksums do not help after the start. So the first
worker that opens a version copies its folder, and all workers verify and map that copy. A restarted
worker opens the copy too, so it serves the same content as the others, whatever happened to the
folder.
"""

import fcntl
import logging
import os
import shutil
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.versions.choices import locked

COPIES = "copies"
LOCK = "lock"
TURN = "turn"

logger = logging.getLogger(__name__)


class Copies:
    """The copies in a state folder. A process that uses one holds a shared lock.

    Args:
        folder: the state folder.
        max_bytes: larger artifacts are mapped in place.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder / COPIES
        self._max_bytes = max_bytes

    def take(self, source: Path) -> tuple[Path, int | None]:
        """The copy of an artifact's folder, and the descriptor that holds its lock.

        If there is no room for a copy: the folder itself, and None.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        size = sum(path.stat().st_size for path in source.iterdir())
        if size > self._max_bytes:
            return source, None
        target = self._folder / source.parent.name / source.name
        target.parent.mkdir(parents=True, exist_ok=True)
        with locked(self._folder / LOCK):
            try:
                _copy(source, target)
            except OSError as error:
                logger.warning("%s is mapped in place: %s", source, error)
                return source, None
            held = os.open(target.with_suffix(".held"), os.O_RDWR | os.O_CREAT, 0o600)
            fcntl.flock(held, fcntl.LOCK_SH)
        return target, held

    @contextmanager
    def turn(self, answering: bool) -> Iterator[None]:
        """Waits until no other worker is opening a version, to leave the cores to answers.

        At the start, when no worker answers yet, all open at once.
        """
        if not answering:
            yield
            return
        with locked(self._folder / TURN):
            yield

    def drop(self, source: Path) -> None:
        """Removes a broken copy, unless it is in use."""
        self._remove(self._folder / source.parent.name / source.name)

    def sweep(self) -> None:
        """Removes unused copies."""
        for held in self._folder.glob("*/*.held"):
            self._remove(held.with_suffix(""))

    def _remove(self, target: Path) -> None:
        held = target.with_suffix(".held")
        with locked(self._folder / LOCK), held.open("a") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return
            shutil.rmtree(target, ignore_errors=True)
            held.unlink()


def release_with(owner: object, held: int) -> None:
    """Releases a copy when its owner is gone."""
    weakref.finalize(owner, os.close, held)


def _copy(source: Path, target: Path) -> None:
    if target.exists():
        return
    building = target.with_name(f".{target.name}")
    shutil.rmtree(building, ignore_errors=True)
    try:
        shutil.copytree(source, building, copy_function=shutil.copyfile)
        building.chmod(0o700)  # the artifact's own folder may be read-only
        building.rename(target)
    except OSError:
        shutil.rmtree(building, ignore_errors=True)
        raise
