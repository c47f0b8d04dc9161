"""Errors of the training side; each message is for the user to read.

ModelError          root
├── DataError       a click file cannot be used
├── DownloadError   a public data set cannot be fetched, or its checksum differs
└── RecipeError     a recipe holds an unknown or impossible choice, or a run does not fit it
"""


class ModelError(Exception):
    """Root of this package's errors."""


class DataError(ModelError):
    """A click file cannot be used."""


class DownloadError(ModelError):
    """A public data set cannot be fetched, or is not the expected file."""


class RecipeError(ModelError):
    """A recipe holds an unknown or impossible choice, or a run does not fit it."""
