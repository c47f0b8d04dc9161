"""Errors in OpenAI's shape: `{"error": {"message", "type", "param", "code"}}`."""

import orjson

from persona.contract import InvalidRequest, ModelNotFound, PersonaError
from service.protocols.exchange import Answer
from service.protocols.native.errors import RETRY_AFTER_S, STATUSES, UNREAD, retry_headers

# A retry can help with these. Unless told otherwise, the client retries 409, 429 and every 5xx.
TRY_AGAIN = {429, 503, 504}


def error_answer(
    status: int,
    code: str,
    message: str,
    param: str | None = None,
    *,
    close: bool = False,
    retry_after_s: float = RETRY_AFTER_S,
) -> Answer:
    """An error as an answer; `close` if the connection ends with it."""
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    error = {
        "message": message,
        "type": "server_error" if status >= 500 else kind,
        "param": param,
        "code": code,
    }
    headers = [(b"x-should-retry", b"true" if status in TRY_AGAIN else b"false")]
    if status in TRY_AGAIN:
        headers += retry_headers(retry_after_s)
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if close:
        headers.append((b"connection", b"close"))
    return Answer(orjson.dumps({"error": error}), status, headers, code)


def answer_to(error: PersonaError) -> Answer:
    """The answer to a request that is refused."""
    status, code = STATUSES.get(type(error), (500, "internal"))
    param = None
    if isinstance(error, InvalidRequest):
        param = "input" if error.part == "clicks" else error.part
    if isinstance(error, ModelNotFound):
        param = "model"
    message = str(error) if status != 500 else "internal error"
    retry_after_s = error.retry_after_s or RETRY_AFTER_S
    close = isinstance(error, UNREAD)
    return error_answer(status, code, message, param, close=close, retry_after_s=retry_after_s)
