"""The arguments and results that `Client` and `Engine` share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from persona.contract import Floats, ItemId, PersonaError

# Item ids from oldest to newest, or {"id": ..., "items": [...]}.
History = Sequence[ItemId] | NDArray[Any] | Mapping[str, object]


class ModelChanged(PersonaError):
    """Two parts of one job come from different versions, so their numbers cannot be compared."""


@dataclass(frozen=True, eq=False)
class PooledAttention:
    """The weights behind the user embedding: for each head, `start` and `weights` sum to 1."""

    items: list[ItemId]  # the L used clicks, oldest to newest
    weights: Floats  # (H, L)
    start: Floats  # (H,) the start token's weight


@dataclass(frozen=True, eq=False)
class FullAttention:
    """The weights of every block, queries by keys; position 0 is the start token."""

    items: list[ItemId]  # the L used clicks, oldest to newest
    blocks: Floats  # (blocks, H, 1 + L, 1 + L)


@dataclass(frozen=True, eq=False)
class CandidateAttention:
    """The weight that each of the N candidates gives to each click."""

    items: list[ItemId]  # the L used clicks, oldest to newest
    weights: Floats  # (N, H, L), 0 for an unknown candidate


@dataclass(frozen=True, eq=False)
class User:
    """What the model used of one history."""

    id: ItemId | None  # as given with the history
    used: int  # clicks that the encoder read
    truncated: int  # older clicks, beyond the model's max_length
    unknown: int  # clicks of unknown items: used ones with "token", left out with "drop"
    attention: PooledAttention | FullAttention | None = None


@dataclass(frozen=True, eq=False)
class ScoredUser:
    """The scores of one history's N candidates."""

    id: ItemId | None  # as given with the history
    used: int  # the counts are those of `User`
    truncated: int
    unknown: int
    scores: Floats  # (N,), higher is more likely to be clicked next; NaN for an unknown candidate
    attention: CandidateAttention | None = None


@dataclass(frozen=True, eq=False)
class Encoded:
    """The user embeddings of B histories, in their order."""

    model: str
    version: str
    embeddings: Floats  # (B, D)
    users: list[User]  # B

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class Scored:
    """The scores of B histories, in their order."""

    model: str
    version: str
    users: list[ScoredUser]  # B

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class Reasons:
    """The contribution of each click to each of the N recommended items."""

    items: list[ItemId]  # the L used clicks, oldest to newest
    weights: Floats  # (N, L): contributions to the score; without a base, attention weights
    base: Floats | None = None  # (N,) scores of an empty history: base + weights.sum(1) = scores


@dataclass(frozen=True, eq=False)
class RecommendedUser:
    """The items to show to one user next."""

    id: ItemId | None  # as given with the history
    used: int  # the counts are those of `User`
    truncated: int
    unknown: int
    items: list[ItemId]  # N, the best first; fewer than k if no more qualify
    scores: Floats  # (N,)
    reasons: Reasons | None = None
    cold: list[ItemId] = field(default_factory=list)  # items that were added after training


@dataclass(frozen=True, eq=False)
class Recommended:
    """The recommended items of B histories, in their order."""

    model: str
    version: str
    users: list[RecommendedUser]  # B
    recall: float | None = None  # at 100, of the index that was searched; None: exact

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class SimilarItem:
    """The items most similar to one item."""

    item: ItemId
    items: list[ItemId]  # N, the most similar first; none for an unknown item
    scores: Floats  # (N,) cosines of the item embeddings
    cold: list[ItemId] = field(default_factory=list)  # items that were added after training


@dataclass(frozen=True, eq=False)
class Similar:
    """The items most similar to each given item, in the order of the query."""

    model: str
    version: str
    items: list[SimilarItem]

    def __len__(self) -> int:
        return len(self.items)


Answer = Encoded | Scored | Recommended | Similar


def check_same_version(first: Answer, later: Answer) -> None:
    """Raises `ModelChanged` if `later` comes from another model or version than `first`."""
    if (first.model, first.version) != (later.model, later.version):
        raise ModelChanged(
            f"the model changed from {first.model} version {first.version} to {later.model} "
            f"version {later.version} during the call; start again"
        )
