"""The plain encoder behind BentoML, two workers."""

import bentoml  # type: ignore[import-not-found]  # in its own environment
from plain_encoder import PlainEncoder  # type: ignore[import-not-found]  # beside this file


@bentoml.service(workers=2, logging={"access": {"enabled": False}}, metrics={"enabled": False})
class Encode:
    """`{"histories": ...}` to embeddings."""

    def __init__(self) -> None:
        self._encoder = PlainEncoder()

    @bentoml.api  # type: ignore[untyped-decorator]  # unknown here
    def encode(self, histories: list[list[int]]) -> list[list[float]]:
        """Embeddings (B, D)."""
        return self._encoder.encode(histories).tolist()  # type: ignore[no-any-return]  # unknown
