"""The errors about tables.

PersonaError
└── TableError         a file cannot be read or understood; the message names it
    └── NoSuchColumn   a requested or required column is missing
"""

from persona.contract import PersonaError


class TableError(PersonaError):
    """A file cannot be read or understood."""


class NoSuchColumn(TableError):
    """A requested or required column is missing."""
