"""The item table of a model that reads features of items: what an item is, and what clicks taught.

An item's vector is a projection of its features plus a learned part. Training drops the learned
part at random, so that the projection alone is useful too: a new item has nothing else
(DropoutNet, Volkovs 2017, drops the inputs that a cold item lacks).
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class ItemTable(nn.Module):
    """Vectors of items from their features, in place of an `nn.Embedding`.

    Args:
        features: (n_items, F) float32, as `persona.features.encode` makes them. Unknown items have
            a learned part alone.
        width: D, of a vector.
        drop: share of the learned parts that training leaves out.
    """

    features: Tensor  # (n_items + 1, F)

    def __init__(self, features: Tensor, width: int, drop: float = 0.0) -> None:
        super().__init__()
        n_items, n_features = features.shape
        self.num_embeddings = n_items + 1
        self.sparse = False  # whether the gradient of the learned parts is
        self.drop = drop
        self.register_buffer("features", F.pad(features, (0, 0, 0, 1)))
        self.projection = nn.Parameter(torch.randn(n_features, width) * 0.02)
        self.learned = nn.Parameter(torch.zeros(n_items + 1, width))
        nn.init.normal_(self.learned[n_items], std=0.02)

    @property
    def weight(self) -> Tensor:
        """The whole table, (n_items + 1, D)."""
        return self.features @ self.projection + self._dropped(self.learned)

    def forward(self, item_ids: Tensor) -> Tensor:
        """The vectors of some items, (...) to (..., D)."""
        learned = F.embedding(item_ids, self.learned, sparse=self.sparse)
        return F.embedding(item_ids, self.features) @ self.projection + self._dropped(learned)

    def learned_size(self, item_ids: Tensor) -> Tensor:
        """Mean square length of the learned parts of some items; its gradient reaches them."""
        learned = F.embedding(item_ids, self.learned, sparse=self.sparse)
        return learned.square().sum(-1).mean()

    def _dropped(self, learned: Tensor) -> Tensor:
        """In training, the vectors with some of them set to 0 at random."""
        if not self.training or self.drop == 0:
            return learned
        kept = torch.rand(learned.shape[:-1], device=learned.device) >= self.drop
        return learned * kept.unsqueeze(-1)
