"""The plain encoder behind Triton's Python backend, two instances."""

import os
from typing import Any

import numpy as np
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file
from pytriton.model_config import ModelConfig, Tensor  # type: ignore[import-not-found]  # its own
from pytriton.triton import Triton, TritonConfig  # type: ignore[import-not-found]  # environment


class Encode:
    """Input `item_ids` (B, L) to output `user_embedding` (B, D)."""

    def __init__(self) -> None:
        self._encoder = PlainEncoder()

    def __call__(self, requests: list[Any]) -> list[dict[str, np.ndarray]]:
        """One answer a request."""
        answers = []
        for request in requests:
            embeddings = self._encoder.encode(request.data["item_ids"])
            answers.append({"user_embedding": embeddings})
        return answers


if __name__ == "__main__":
    port = int(os.environ["BENCH_PORT"])
    config = TritonConfig(
        http_port=port, allow_grpc=False, allow_metrics=False, http_address="127.0.0.1"
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name="encoder",
            infer_func=[Encode(), Encode()],
            inputs=[Tensor(name="item_ids", dtype=np.int64, shape=(-1, -1))],
            outputs=[Tensor(name="user_embedding", dtype=np.float32, shape=(-1, -1))],
            config=ModelConfig(batching=False),
        )
        triton.serve()
