"""What stops an export.

ExportError
├── GateError       8 bits leave too little of the embeddings
├── ParityError     ONNX Runtime and PyTorch differ by more than the tolerance
└── TargetExists    the artifact's folder is there already
"""


class ExportError(Exception):
    """Root of this package's errors; the message is fit for a user to read."""


class GateError(ExportError):
    """Rounded to 8 bits, the embeddings or the ranking differ by more than the limits."""


class ParityError(ExportError):
    """ONNX Runtime's answer differs from PyTorch's by more than the tolerance."""


class TargetExists(ExportError):
    """The artifact's folder is there already; versions are never overwritten."""
