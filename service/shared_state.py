"""A folder for what workers must agree on: copies of artifacts, and what an operator has chosen."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from service.errors import NoStateFolder
from service.settings import Settings
from service.versions.choices import change_choices
from service.versions.watching import clear


@contextmanager
def shared_state(settings: Settings) -> Iterator[Settings]:
    """The settings with that folder; SIGHUP makes the workers look at all artifacts anew.

    Raises:
        NoStateFolder: nothing can be written there.
    """
    given = settings.state_folder
    try:
        folder = given or Path(tempfile.mkdtemp(prefix="persona-state-"))
        clear(folder)
    except OSError as error:
        raise NoStateFolder(f"PERSONA_STATE_FOLDER: cannot write there: {error}") from None

    def look(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not wait for the first's lock
        change_choices(folder)
        signal.signal(number, look)

    signal.signal(signal.SIGHUP, look)
    try:
        yield settings.model_copy(update={"state_folder": folder})
    finally:
        if given is None:
            shutil.rmtree(folder, ignore_errors=True)
