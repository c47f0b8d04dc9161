"""Errors in the shape of this protocol: `{"error": "text"}`."""

import orjson

from persona.contract import InvalidRequest, PersonaError
from service.protocols.exchange import Answer
from service.protocols.native.errors import RETRY_AFTER_S, STATUSES, UNREAD


def error_answer(status: int, _code: str, message: str, *, close: bool = False) -> Answer:
    """An error as it is sent; `close` where the connection ends with it."""
    headers = [(b"retry-after", b"%d" % RETRY_AFTER_S)] if status == 429 else []
    if close:
        headers.append((b"connection", b"close"))
    return Answer(orjson.dumps({"error": message}), status, headers)


def answer_to(error: PersonaError) -> Answer:
    """The answer to a request that is refused; what is wrong with it is 400 here, not 422."""
    status, code = STATUSES.get(type(error), (500, "internal"))
    if isinstance(error, InvalidRequest):
        status = 400
    message = str(error) if status != 500 else "internal error"
    return error_answer(status, code, message, close=isinstance(error, UNREAD))
