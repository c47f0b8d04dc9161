"""The plain encoder behind MLServer: a custom runtime, without adaptive batching.

Batching would stack histories of unlike lengths, and fail a third of them.
"""

import asyncio
import os

from mlserver import (  # type: ignore[import-not-found]  # in its own environment
    MLModel,
    MLServer,
    ModelSettings,
    Settings,
)
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]  # the same
from mlserver.types import (  # type: ignore[import-not-found]  # the same
    InferenceRequest,
    InferenceResponse,
)
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file


class Encode(MLModel):  # type: ignore[misc]  # its base is unknown here
    """Input `item_ids` (B, L) to output `user_embedding` (B, D)."""

    async def load(self) -> bool:
        """Opens the encoder."""
        self._encoder = PlainEncoder()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """One inference."""
        item_ids = NumpyCodec.decode_input(payload.inputs[0])
        embeddings = self._encoder.encode(item_ids)
        output = NumpyCodec.encode_output("user_embedding", embeddings)
        return InferenceResponse(model_name=self.name, outputs=[output])


async def main() -> None:
    """Serves until it is ended."""
    port = int(os.environ["BENCH_PORT"])
    settings = Settings(
        host="127.0.0.1",
        http_port=port,
        grpc_port=port + 1,
        metrics_port=port + 2,
        parallel_workers=0,
        debug=False,
        load_models_at_startup=False,
    )
    model = ModelSettings(name="encoder", implementation=Encode)
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
