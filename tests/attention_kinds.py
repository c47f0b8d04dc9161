"""Every attention that the three choices and the number of heads make: 4 x 2 x 2 x 3 = 48."""

from itertools import product
from typing import NamedTuple

import pytest

from model.attention import NORMALISATIONS, SIMILARITIES, Normalisation, Similarity
from model.encoder import AttentionKind, EncoderConfig

KINDS: tuple[AttentionKind, ...] = ("self", "source_target")


class Kind(NamedTuple):
    """One attention."""

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
    """Runs a test for each kind, with prose for a name."""
    return pytest.mark.parametrize(
        "kind",
        kinds,
        ids=[f"{k.attention} {k.similarity} {k.normalisation} x{k.heads}" for k in kinds],
    )
