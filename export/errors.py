"""What stops an export.

PersonaError
└── ExportError
    ├── ParityError     ONNX Runtime and PyTorch differ by more than the tolerance
    ├── RecallError     the index misses too many of the best items
    └── TitlesError     the names, links or examples cannot be used
"""

from persona.contract import PersonaError


class ExportError(PersonaError):
    """Root of this package's errors; the message is fit for a user to read."""


class ParityError(ExportError):
    """ONNX Runtime's answer differs from PyTorch's by more than the tolerance."""


class RecallError(ExportError):
    """The index misses too many of the best items."""


class TitlesError(ExportError):
    """The names, links or examples for people cannot be used; the message names file and item."""
