"""All combinations of attention, similarity, normalisation and heads: 2 x 4 x 2 x 3 = 48."""

from itertools import product
from typing import NamedTuple

import pytest

from model.network.attention import NORMALISATIONS, SIMILARITIES, Normalisation, Similarity
from model.network.config import AttentionKind, EncoderConfig

KINDS: tuple[AttentionKind, ...] = ("self", "source_target")


class Kind(NamedTuple):
    """One combination."""

    attention: AttentionKind
    similarity: Similarity
    normalisation: Normalisation
    heads: int

    def config(self, **changes: object) -> EncoderConfig:
        """A small encoder of this kind."""
        fields = {"width": 16, "blocks": 2, "max_length": 12} | changes
        return EncoderConfig(**self._asdict(), **fields)  # type: ignore[arg-type]  # by name


ALL = [Kind(*choice) for choice in product(KINDS, SIMILARITIES, NORMALISATIONS, (1, 2, 4))]


def each(kinds: list[Kind]) -> pytest.MarkDecorator:
    """Runs a test for each kind, with readable ids."""
    return pytest.mark.parametrize(
        "kind",
        kinds,
        ids=[f"{k.attention} {k.similarity} {k.normalisation} x{k.heads}" for k in kinds],
    )
