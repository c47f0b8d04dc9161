"""A folder for what the workers share: their reports, and with several of them their metrics."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.errors import CannotShare
from service.metrics import MULTIPROCESS_FOLDER
from service.owned_folder import owned_folder

WORKER_BYTES = 2**20  # that a worker may need; a mapped file without room kills who writes to it


@contextmanager
def shared_folder(workers: int, parents: Sequence[Path] | None = None) -> Iterator[Path]:
    """A new folder, in memory if there is room; gone afterwards.

    Args:
        workers: that share it.
        parents: where it may be made; by default `/dev/shm`, then the temporary folder.

    Raises:
        CannotShare: in none of them; the message says why.
    """
    with ExitStack() as stack:
        needed = workers * WORKER_BYTES
        folder = _make(needed, parents if parents is not None else _parents(), stack)
        if workers > 1:  # one worker adds up its metrics in itself
            os.environ[MULTIPROCESS_FOLDER] = str(folder)
        try:
            yield folder
        finally:
            os.environ.pop(MULTIPROCESS_FOLDER, None)


def _parents() -> list[Path]:
    memory = Path("/dev/shm")  # noqa: S108  # there where /tmp is read-only; mkdtemp names safely
    try:
        return list(dict.fromkeys([memory, Path(tempfile.gettempdir())]))
    except FileNotFoundError:  # no usable one
        return [memory]


def _make(needed: int, parents: Sequence[Path], stack: ExitStack) -> Path:
    problems = []
    for parent in parents:
        try:
            free = shutil.disk_usage(parent).free
            if free >= needed:
                return stack.enter_context(owned_folder("persona-workers-", parent))
            problems.append(f"{parent} has {free // 1024:,} KiB free")
        except OSError as error:
            problems.append(f"{parent}: {(error.strerror or str(error)).lower()}")
    raise CannotShare(
        f"the workers need {needed // 1024:,} KiB in a folder to share their state and metrics: "
        + ", ".join(problems)
    )
