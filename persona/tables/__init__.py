"""Reads tables of clicks or histories, of any size, with DuckDB and Arrow.

    open_table(source, options)   batches of histories, and broken rows
    propose(source, options)      a guess of the columns
    checksum(source)              identifies the input
    TableOptions                  the columns, and the rows that count

Each name is imported on first use, because the options alone need neither DuckDB nor Arrow.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from persona.tables.errors import NoSuchColumn, TableError
    from persona.tables.opening import checksum, open_table
    from persona.tables.options import TableFormat, TableOptions
    from persona.tables.proposal import Proposal, propose
    from persona.tables.rows import Batch, Reject
    from persona.tables.table import Table

__all__ = [
    "Batch",
    "NoSuchColumn",
    "Proposal",
    "Reject",
    "Table",
    "TableError",
    "TableFormat",
    "TableOptions",
    "checksum",
    "open_table",
    "propose",
]

MODULES = {
    "errors": "NoSuchColumn TableError",
    "opening": "checksum open_table",
    "options": "TableFormat TableOptions",
    "proposal": "Proposal propose",
    "rows": "Batch Reject",
    "table": "Table",
}


def __getattr__(name: str) -> object:
    for module, names in MODULES.items():
        if name in names.split():
            return getattr(import_module(f"persona.tables.{module}"), name)
    raise AttributeError(f"module 'persona.tables' has no attribute '{name}'")
