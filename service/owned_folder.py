"""Temporary folders that do not outlive their process for long, even where it is killed.

A process holds a lock in its folder, which the kernel releases however the process ends. The next
one that makes such a folder removes those that nobody holds.
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
    """A new folder below `parent`; gone afterwards, or when the next one is made.

    Raises:
        OSError: it cannot be made.
    """
    _sweep(prefix, parent)
    # Under another name until the lock is held: nobody else may sweep it before.
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
