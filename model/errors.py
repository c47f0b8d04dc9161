"""What goes wrong before and during training.

ModelError
├── DataError       a click file cannot be used; names the file and the reason
├── DownloadError   a public set could not be fetched or its checksum differs
└── RecipeError     a recipe names an unknown or impossible choice
"""


class ModelError(Exception):
    """Root of this package's errors; the message is fit for a user to read."""


class DataError(ModelError):
    """A click file cannot be used."""


class DownloadError(ModelError):
    """A public data set could not be fetched, or is not the file that was expected."""


class RecipeError(ModelError):
    """A recipe names an unknown or impossible choice."""
