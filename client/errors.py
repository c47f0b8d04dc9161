"""What a caller of the service, or of whole-file scoring, may have to handle.

ClientError
├── InvalidRequest      422: `path` says where in the request
├── ModelNotFound       404: no model of that name is served
├── BodyTooLarge        413: the request has more bytes than the service takes
├── Overloaded          429: too much now                          (tried again)
├── NotReady            503: starting, draining or broken          (tried again)
├── DeadlineExceeded    504, or no answer within the timeout       (tried again)
├── ConnectionFailed    no connection, or it broke                 (tried again)
├── ServerError         500: the service failed; its log says why
├── UnexpectedAnswer    something answers, but not as Persona does
├── ModelChanged        another version took over between two parts of one call
└── FileError           a file cannot be read, written or understood
    └── NoHistories     a table without a column of histories
"""

from typing import ClassVar

PathToValue = tuple[str | int, ...]


class ClientError(Exception):
    """Root of this package's errors; the message is fit for a user to read."""

    retryable: ClassVar[bool] = False

    def __init__(
        self, message: str, *, path: PathToValue = (), retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.path = path  # where in the request, as keys and indices: ("histories", 3, 0)
        self.retry_after = retry_after  # seconds, where the service asked for a pause


class InvalidRequest(ClientError):
    """The request is understood and wrong; sending it again cannot help."""


class ModelNotFound(ClientError):
    """No model of that name is served."""


class BodyTooLarge(ClientError):
    """The request has more bytes than the service takes."""


class Overloaded(ClientError):
    """The service has too much to do now."""

    retryable = True


class NotReady(ClientError):
    """The service cannot answer now: it is starting, draining or broken."""

    retryable = True


class DeadlineExceeded(ClientError):
    """The answer took longer than the service's deadline or the client's timeout."""

    retryable = True


class ConnectionFailed(ClientError):
    """The service could not be reached, or the connection broke."""

    retryable = True


class ServerError(ClientError):
    """The service failed while it computed the answer."""


class UnexpectedAnswer(ClientError):
    """Something answers at this address, but not as Persona does."""


class ModelChanged(ClientError):
    """Another version of the model took over; embeddings of two versions do not compare."""


class FileError(ClientError):
    """A file cannot be read, written or understood; the message names it."""


class NoHistories(FileError):
    """A table without a column of histories, for example one with a row a click."""
