"""Temporary folders that are removed even if their process was killed.

A process holds a lock in its folder, which the kernel releases when the process ends. The next
process that creates such a folder removes all folders without a lock.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OWNER = ".owner"


@contextmanager
def owned_folder(prefix: str, parent: Path) -> Iterator[Path]:
    """A new folder below `parent`, removed at the end, or when the next one is created.

    Raises:
        OSError: it cannot be created.
    """
    _sweep(prefix, parent)
    # Under another name until the lock is held, so that nobody else sweeps it before.
    made = Path(tempfile.mkdtemp(prefix=f".{prefix}", dir=parent))
    with (made / OWNER).open("wb") as owner:
        fcntl.flock(owner, fcntl.LOCK_EX)
        folder = made.rename(made.with_name(made.name.removeprefix(".")))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(prefix: str, parent: Path) -> None:
    for folder in parent.glob(f"{prefix}*"):
        with suppress(OSError), (folder / OWNER).open("rb") as owner:  # or it is somebody else's
            fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
