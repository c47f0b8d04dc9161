"""What is wrong with a table.

PersonaError
└── TableError         a file cannot be read or understood; the message names it
    └── NoSuchColumn   a column that was asked for, or that is needed, is not there
"""

from persona.contract import PersonaError


class TableError(PersonaError):
    """A file cannot be read or understood."""


class NoSuchColumn(TableError):
    """A column that was asked for, or that is needed, is not there."""
