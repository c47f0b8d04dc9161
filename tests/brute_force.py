"""Recommendations by brute force, the plain way: every item, then a sort."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np

from persona.artifact import open_artifact
from persona.contract import Floats, ItemId


class BruteForce:
    """The item table of an artifact in double precision."""

    def __init__(self, artifact: Path) -> None:
        opened = open_artifact(artifact)
        self.item_ids = opened.item_ids
        self.table = opened.item_embeddings()[:-1].astype(np.float64)  # (n_items, D)

    def best(
        self,
        embedding: Floats,
        k: int,
        *,
        allowed: Collection[ItemId] | None = None,
        denied: Collection[ItemId] = (),
    ) -> tuple[list[ItemId], Floats]:
        """The ids and scores of the largest products; ties by row."""
        scores = (self.table @ embedding.astype(np.float64)).astype(np.float32)
        return self._first(scores, k, allowed, denied)

    def like(self, item: ItemId, k: int) -> tuple[list[ItemId], Floats]:
        """The ids and cosines of the most similar items, without the item itself."""
        own = self.table[self.item_ids.index(item)]
        lengths = np.linalg.norm(self.table, axis=1) * np.linalg.norm(own)
        return self._first((self.table @ own / lengths).astype(np.float32), k, None, [item])

    def _first(
        self,
        scores: Floats,
        k: int,
        allowed: Collection[ItemId] | None,
        denied: Collection[ItemId],
    ) -> tuple[list[ItemId], Floats]:
        rows: Sequence[int] = sorted(range(len(scores)), key=lambda row: (-scores[row], row))
        kept = [
            row
            for row in rows
            if (allowed is None or self.item_ids[row] in allowed)
            and self.item_ids[row] not in denied
        ][:k]
        return [self.item_ids[row] for row in kept], scores[kept]
