"""What is wrong with a file, beside the errors of `persona.contract` that the scorer raises.

PersonaError
└── FileError         a file cannot be read, written or understood; the message names it
    └── NoHistories   a table has no column of histories, for example one with a row for each click
"""

from persona.contract import PersonaError


class FileError(PersonaError):
    """A file cannot be read, written or understood."""


class NoHistories(FileError):
    """A table has no column of histories."""
