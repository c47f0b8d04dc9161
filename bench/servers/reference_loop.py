"""The reference loop: as little as can stand between HTTP and ONNX Runtime in Python.

A bare ASGI callable, orjson in and out, no validation, no batching. Two workers of uvicorn, each
with a listening socket as Persona's have, or in some rounds one of them would get all connections.

With `BENCH_GRAPH=0` it answers zeros at once: HTTP and JSON alone.
"""

import os
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import numpy as np
import orjson
import uvicorn
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file
from uvicorn.supervisors import Multiprocess

from service.listening import a_socket_for_each

Message = MutableMapping[str, Any]
HEADERS = [(b"content-type", b"application/json")]

encoder = PlainEncoder()
zeros = np.zeros((1, 64), np.float32)
computes = os.environ.get("BENCH_GRAPH") != "0"


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
    histories = orjson.loads(body)["histories"]
    embeddings = encoder.encode(histories) if computes else zeros
    content = orjson.dumps({"embeddings": embeddings}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [*HEADERS, (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


if __name__ == "__main__":
    config = uvicorn.Config(
        "reference_loop:app",
        port=int(os.environ["BENCH_PORT"]),
        workers=2,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
    )
    Multiprocess(config, [a_socket_for_each(config.bind_socket())]).run()
