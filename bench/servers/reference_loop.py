"""The reference loop: as little as can stand between HTTP and ONNX Runtime in Python.

A bare ASGI callable, orjson in and out, no validation, no batching. Run by uvicorn.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file

Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"application/json")]

encoder = PlainEncoder()


async def app(
    _scope: Message,
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    """`{"histories": [[row, ...], ...]}` to `{"embeddings": [[number, ...], ...]}`."""
    body, more = b"", True
    while more:
        message = await receive()
        body += message["body"]
        more = message["more_body"]
    embeddings = encoder.encode(orjson.loads(body)["histories"])
    content = orjson.dumps({"embeddings": embeddings}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [*HEADERS, (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})
