"""Reads tables of clicks or histories, of any size, with DuckDB and Arrow.

open_table(source, options)   batches of histories, and the rows that cannot be used
TableOptions                  where the columns stand, and which rows count
"""

from persona.tables.errors import NoSuchColumn, TableError
from persona.tables.opening import checksum, open_table
from persona.tables.options import FORMATS, TableFormat, TableOptions
from persona.tables.rows import Batch, Reject

__all__ = [
    "FORMATS",
    "Batch",
    "NoSuchColumn",
    "Reject",
    "TableError",
    "TableFormat",
    "TableOptions",
    "checksum",
    "open_table",
]
