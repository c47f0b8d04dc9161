"""The plain encoder behind mosec: its Rust front, two workers, JSON by orjson.

BENCH_BATCH is how many histories may share a run, padded to the longest; 1 is without batching.
"""

import os
import sys
from typing import Any

import orjson
from mosec import Server, Worker  # type: ignore[import-not-found]  # in its own environment
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file

BATCH = int(os.environ.get("BENCH_BATCH", "1"))


class Encode(Worker):  # type: ignore[misc]  # its base is unknown here
    """One history to its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self._encoder = PlainEncoder()

    def deserialize(self, data: bytes) -> Any:
        """Like mosec, with orjson."""
        return orjson.loads(data)

    def serialize(self, data: Any) -> bytes:
        """Like mosec, with orjson."""
        return orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)

    def forward(self, data: Any) -> Any:
        """`{"histories": ...}` to `{"embeddings": ...}`, or a list of them where it batches."""
        if BATCH == 1:
            return {"embeddings": self._encoder.encode(data["histories"])}
        embeddings = self._encoder.encode([one["histories"][0] for one in data])
        return [{"embeddings": [embedding]} for embedding in embeddings]


if __name__ == "__main__":
    sys.argv[1:] = ["--port", os.environ["BENCH_PORT"], "--address", "127.0.0.1"]
    server = Server()
    server.append_worker(Encode, num=2, max_batch_size=BATCH, max_wait_time=1)
    server.run()
