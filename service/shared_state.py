"""A folder for copies of artifacts and the operator's choices, shared by the workers."""

import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

from service.errors import NoStateFolder
from service.owned_folder import owned_folder
from service.settings import Settings
from service.versions.choices import change_choices
from service.versions.watching import clear


@contextmanager
def shared_state(settings: Settings) -> Iterator[Settings]:
    """The settings with that folder; SIGHUP makes the workers check all artifacts again.

    Raises:
        NoStateFolder: the folder cannot be written.
    """
    given = settings.state_folder
    with ExitStack() as stack:
        try:
            folder = given or stack.enter_context(_temporary())
            clear(folder)
        except OSError as error:
            raise NoStateFolder(f"PERSONA_STATE_FOLDER: cannot write there: {error}") from None
        _look_on_sighup(folder)
        yield settings.model_copy(update={"state_folder": folder})


def _temporary() -> AbstractContextManager[Path]:
    return owned_folder("persona-state-", Path(tempfile.gettempdir()))


def _look_on_sighup(folder: Path) -> None:
    def look(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_IGN)  # a second signal must not wait for the first's lock
        change_choices(folder)
        signal.signal(number, look)

    signal.signal(signal.SIGHUP, look)
