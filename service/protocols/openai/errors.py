"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

import orjson

from persona.contract import (
    DeadlineExceeded,
    InvalidRequest,
    ModelNotFound,
    NotReady,
    Overloaded,
    PersonaError,
)
from service.protocols.exchange import Answer
from service.protocols.native.errors import RETRY_AFTER_S, STATUSES, UNREAD

# The client tries 409, 429 and every 5xx again, unless a header tells it not to.
TRY_AGAIN = (Overloaded, NotReady, DeadlineExceeded)


def error_answer(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    *,
    retry: bool = False,
    close: bool = False,
) -> Answer:
    """An error as it is sent; `retry`: the client tries again, `close`: the connection ends."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {
        "message": message,
        "type": "server_error" if status >= 500 else kind,
        "param": param,
        "code": code,
    }
    headers = [(b"x-should-retry", b"true" if retry else b"false")]
    if retry:
        headers.append((b"retry-after", b"%d" % RETRY_AFTER_S))
    if close:
        headers.append((b"connection", b"close"))
    return Answer(orjson.dumps({"error": error}), status, headers)


def answer_to(error: PersonaError) -> Answer:
    """The answer to a request that is refused."""
    status, code = STATUSES.get(type(error), (500, "internal"))
    param = None
    if isinstance(error, InvalidRequest):
        param = "input" if error.part == "clicks" else error.part
    if isinstance(error, ModelNotFound):
        param = "model"
    message = str(error) if status != 500 else "internal error"
    retry, close = isinstance(error, TRY_AGAIN), isinstance(error, UNREAD)
    return error_answer(status, code, message, param, retry=retry, close=close)
