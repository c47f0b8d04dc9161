"""The plain encoder behind LitServe, two workers."""

import os
from typing import Any

import litserve  # type: ignore[import-not-found]  # in its own environment
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file


class Encode(litserve.LitAPI):  # type: ignore[misc]  # its base is unknown here
    """`{"histories": ...}` to `{"embeddings": ...}`."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # LitServe's signature
        """Opens the encoder in the worker."""
        self.encoder = PlainEncoder()

    # LitServe reads the name and the type: without one it hands the JSON over.
    def decode_request(self, request):  # type: ignore[no-untyped-def]  # no annotation allowed
        """The histories."""
        return request["histories"]

    def predict(self, x: Any) -> Any:
        """Embeddings (B, D)."""
        return self.encoder.encode(x)

    def encode_response(self, output: Any) -> Any:
        """The response."""
        return {"embeddings": output.tolist()}


if __name__ == "__main__":
    server = litserve.LitServer(
        Encode(), accelerator="cpu", workers_per_device=2, disable_openapi_url=True
    )
    server.run(
        host="127.0.0.1",
        port=int(os.environ["BENCH_PORT"]),
        num_api_servers=2,
        log_level="error",
        generate_client_file=False,
        access_log=False,
    )
