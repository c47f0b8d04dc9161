"""The reference loop: as little as can stand between HTTP and ONNX Runtime in Python.

A bare ASGI callable, orjson in and out, no validation, no batching. Two processes of uvicorn, each
with a listening socket of its own, as Persona's workers have: on a shared one, one of them gets all
connections in some rounds.

With `BENCH_GRAPH=0` it answers zeros at once: HTTP and JSON alone.
"""

import os
import socket
from collections.abc import Awaitable, Callable, MutableMapping
from multiprocessing import Process
from typing import Any

import numpy as np
import orjson
import uvicorn
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file

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


def work() -> None:
    """One worker."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    own.bind(("127.0.0.1", int(os.environ["BENCH_PORT"])))
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_level="error",
        access_log=False,
        server_header=False,
    )
    uvicorn.Server(config).run([own])


if __name__ == "__main__":
    other = Process(target=work)
    other.start()
    work()
    other.terminate()
    other.join()
