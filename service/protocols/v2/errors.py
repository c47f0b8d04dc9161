"""Errors in the shape of this protocol: `{"error": "text"}`."""

import orjson

from persona.contract import InvalidRequest, PersonaError
from service.protocols.exchange import Answer
from service.protocols.native.errors import RETRY_AFTER_S, STATUSES, UNREAD, retry_headers


def error_answer(
    status: int,
    code: str,
    message: str,
    *,
    close: bool = False,
    retry_after_s: float = RETRY_AFTER_S,
) -> Answer:
    """An error as it is sent; `close` where the connection ends with it."""
    headers = retry_headers(retry_after_s) if status == 429 else []
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    if close:
        headers.append((b"connection", b"close"))
    return Answer(orjson.dumps({"error": message}), status, headers, code)


def answer_to(error: PersonaError) -> Answer:
    """The answer to a request that is refused; what is wrong with it is 400 here, not 422."""
    status, code = STATUSES.get(type(error), (500, "internal"))
    if isinstance(error, InvalidRequest):
        status = 400
    message = str(error) if status != 500 else "internal error"
    retry_after_s = error.retry_after_s or RETRY_AFTER_S
    close = isinstance(error, UNREAD)
    return error_answer(status, code, message, close=close, retry_after_s=retry_after_s)
