"""What can go wrong with the scoring of a file, beside the errors of the scorer and of the tables.

PersonaError
└── ScoringError
    ├── FileError         an output cannot be written; the message names it
    ├── InternalError     a fault of this program or of one that it uses
    ├── RunChanged        the work folder belongs to a run with another input, model or options
    ├── TooManyRejects    more rows are rejected than allowed
    └── WorkerEnded       a worker process ended before its work
"""

from traceback import format_exception

from persona.contract import PersonaError


class ScoringError(PersonaError):
    """A file cannot be scored."""


class FileError(ScoringError):
    """An output cannot be written."""


class InternalError(ScoringError):
    """A fault of this program or of one that it uses; a note of it has the traceback."""

    @classmethod
    def of(cls, error: BaseException) -> PersonaError:
        """What a user is told of an error: the error itself if it is one of this library."""
        if isinstance(error, PersonaError):
            return error
        found = cls(f"internal error: {type(error).__name__}: {first_line(error)}")
        found.add_note("".join(format_exception(error)))
        return found


class RunChanged(ScoringError):
    """The work folder belongs to a run with another input, model or options."""


class TooManyRejects(ScoringError):
    """More rows are rejected than allowed."""


class WorkerEnded(ScoringError):
    """A worker process ended before its work."""


def first_line(error: BaseException) -> str:
    """The first line of an error's message; that of Ray goes on with a traceback."""
    return str(error).partition("\n")[0]
