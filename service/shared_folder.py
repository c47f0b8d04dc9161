"""A folder that the workers share, for their reports and, if there are several, their metrics."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from service.errors import CannotShare
from service.metrics import MULTIPROCESS_FOLDER
from service.owned_folder import owned_folder

WORKER_BYTES = 2**20  # space for a worker; writing to a mapped file without room kills the process


@contextmanager
def shared_folder(workers: int, parents: Sequence[Path] | None = None) -> Iterator[Path]:
    """A new folder, in memory if there is room; removed at the end.

    Args:
        workers: number of workers that share it.
        parents: candidates for its place; by default `/dev/shm`, then the temporary folder.

    Raises:
        CannotShare: none of them has room; the message says why.
    """
    with ExitStack() as stack:
        needed = workers * WORKER_BYTES
        folder = _make(needed, parents if parents is not None else _parents(), stack)
        if workers > 1:  # a single worker keeps its metrics in memory
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
