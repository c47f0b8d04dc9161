"""What can go wrong with the scoring of a file, beside the errors of the scorer and of the tables.

PersonaError
└── ScoringError
    ├── FileError         an output cannot be written; the message names it
    ├── RunChanged        the work folder belongs to a run with another input, model or options
    ├── TooManyRejects    more rows are rejected than allowed
    └── WorkerEnded       a worker process ended before its work
"""

from persona.contract import PersonaError


class ScoringError(PersonaError):
    """A file cannot be scored."""


class FileError(ScoringError):
    """An output cannot be written."""


class RunChanged(ScoringError):
    """The work folder belongs to a run with another input, model or options."""


class TooManyRejects(ScoringError):
    """More rows are rejected than allowed."""


class WorkerEnded(ScoringError):
    """A worker process ended before its work."""
