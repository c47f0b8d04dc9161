"""What the service refuses, with the HTTP status and the code that each refusal carries.

ServiceError               500 internal
├── InvalidRequest         422 invalid_request     names the place, the value and the limit
├── BodyTooLarge           413 body_too_large
├── ModelNotFound          404 model_not_found
├── Overloaded             429 overloaded          the queue is full; try again
├── ClientGone             499 client_gone         nobody is left to answer
├── NotReady               503 not_ready
├── DeadlineExceeded       504 deadline_exceeded
└── ArtifactError          500 artifact_invalid    an artifact is broken; names the file
"""

from typing import ClassVar

Place = tuple[str | int, ...]  # in a request's body, as keys and indices


class ServiceError(Exception):
    """Root of this package's errors; the message is fit for a user to read."""

    status: ClassVar[int] = 500
    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, path: Place = ()) -> None:
        super().__init__(message)
        self.message = message
        self.path = path


class InvalidRequest(ServiceError):
    """The request is understood and wrong."""

    status = 422
    code = "invalid_request"


class BodyTooLarge(ServiceError):
    """The body has more bytes than the limit."""

    status = 413
    code = "body_too_large"


class ModelNotFound(ServiceError):
    """No artifact of that name is loaded."""

    status = 404
    code = "model_not_found"


class Overloaded(ServiceError):
    """Too much now; the same request may succeed a moment later."""

    status = 429
    code = "overloaded"


class ClientGone(ServiceError):
    """The client closed the connection before the result was there."""

    status = 499
    code = "client_gone"


class NotReady(ServiceError):
    """The service cannot answer: it is starting, draining or broken."""

    status = 503
    code = "not_ready"


class DeadlineExceeded(ServiceError):
    """The deadline passed before the result was there."""

    status = 504
    code = "deadline_exceeded"


class ArtifactError(ServiceError):
    """An artifact's file is missing, changed, or answers differently from its golden pairs."""

    code = "artifact_invalid"
