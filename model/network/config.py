"""Every choice of the network."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

from model.network.attention import NORMALISATIONS, SIMILARITIES, Normalisation, Similarity
from model.network.time import TIME_KINDS, TimeKind
from persona.columns import ClickColumn, check_columns

AttentionKind = Literal["self", "source_target"]
Pooling = Literal["newest", "mean", "additive"]
Positions = Literal["learned", "rotary", "none"]
Norm = Literal["pre", "post"]


@dataclass(frozen=True)
class EncoderConfig:
    """Every choice of the network; the artifact's manifest shows them.

    Raises:
        ValueError: a choice is unknown, out of range, or does not fit another.
    """

    attention: AttentionKind = "self"  # source_target adds candidates that attend over clicks
    similarity: Similarity = "scaled_dot"  # of a query and a key
    normalisation: Normalisation = "softmax"  # of scores into weights
    pooling: Pooling = "newest"  # of positions into one user embedding
    positions: Positions = "learned"  # counted over real clicks from the oldest, start token 0
    embedding_scale: float = 1.0  # factor of a click's input embedding; SASRec has sqrt(width)
    time: TimeKind = "none"  # of clicks and of asking; see model/network/time.py
    # Of clicks, by name. Training fills them in from its clicks, where the recipe does not.
    columns: Mapping[str, ClickColumn] = field(default_factory=dict)
    width: int = 64  # D, of every state and embedding
    blocks: int = 2
    norm: Norm = "pre"  # pre normalises a layer's input, post its residual sum
    heads: int = 2
    feed_forward: int = 4  # hidden width of the feed-forward layer, in multiples of the width
    gated: bool = False  # SwiGLU in place of GELU
    max_length: int = 200  # the newest clicks, which the encoder reads
    window_step: int = 1  # clicks by which the window moves where a history has more than those
    dropout: float = 0.1  # of embeddings and of every residual branch

    # Recipes are read through pydantic: a misspelt field is an error there too.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        choices = {
            "attention": get_args(AttentionKind),
            "similarity": SIMILARITIES,
            "normalisation": NORMALISATIONS,
            "pooling": get_args(Pooling),
            "positions": get_args(Positions),
            "time": TIME_KINDS,
            "norm": get_args(Norm),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} is {getattr(self, name)!r}, not one of {allowed}")
        self._check_sizes()
        check_columns(self.columns)
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, at least 0 and below 1 is needed")
        if not 0 < self.embedding_scale < math.inf:
            raise ValueError(f"embedding_scale is {self.embedding_scale}, above 0 is needed")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.positions == "rotary":
            self._check_rotary()
        if self.time == "rotary" and self.positions != "rotary":
            raise ValueError(f"rotary time needs rotary positions beside it, not {self.positions}")

    def _check_sizes(self) -> None:
        for name in ("width", "blocks", "heads", "feed_forward", "max_length", "window_step"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}, at least 1 is needed")
        if self.window_step > self.max_length:
            raise ValueError(
                f"window_step is {self.window_step}, more than max_length {self.max_length}"
            )

    @property
    def window(self) -> tuple[int, int]:
        """How many clicks the encoder reads, and by how many their window moves."""
        return self.max_length, self.window_step

    def _check_rotary(self) -> None:
        if self.similarity == "additive":
            raise ValueError("rotary positions need a product of queries and keys, not additive")
        of, times = ("time", 4) if self.time == "rotary" else ("positions", 2)
        if (self.width // self.heads) % times:
            raise ValueError(
                f"rotary {of} need a head width that {times} divides, not "
                f"{self.width // self.heads}"
            )
