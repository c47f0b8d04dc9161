"""What the service answers, as typed values and numpy arrays."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

ItemId = str | int
UserId = str | int
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class PooledAttention:
    """Where the user embedding looked: each head's `start` and `weights` sum to 1."""

    items: list[ItemId]  # the L clicks that were used, oldest to newest
    weights: Floats  # (H, L)
    start: Floats  # (H,) the start token's share


@dataclass(frozen=True, eq=False)
class FullAttention:
    """Every block's weights: row = who looks, column = at what; position 0 is the start token."""

    items: list[ItemId]  # the L clicks that were used, oldest to newest
    blocks: Floats  # (blocks, H, 1 + L, 1 + L)


Attention = PooledAttention | FullAttention


@dataclass(frozen=True, eq=False)
class User:
    """What became of one history."""

    id: UserId | None  # as given with the history
    used: int  # clicks that the encoder saw
    truncated: int  # older clicks beyond the model's max_length
    unknown: int  # clicks on items that the model does not know
    attention: Attention | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """The embeddings of B histories, in their order."""

    model: str
    version: str
    embeddings: Floats  # (B, D)
    users: list[User]  # one a row of embeddings

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class CandidateAttention:
    """How much each click speaks for each of the N candidates."""

    items: list[ItemId]  # the L clicks that were used, oldest to newest
    weights: Floats  # (N, H, L)


@dataclass(frozen=True, eq=False)
class ScoredUser:
    """The scores of one history's candidates."""

    id: UserId | None
    used: int
    truncated: int
    unknown: int
    scores: Floats  # (N,) in the candidates' order; higher is likelier to be clicked next
    attention: CandidateAttention | None = None


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of B histories, in their order."""

    model: str
    version: str
    users: list[ScoredUser]

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True)
class Model:
    """A model that the service offers."""

    name: str
    version: str
    facts: dict[str, object]  # everything that `GET /v1/models` says about it
