"""Graphs for kept histories: whole histories, and new clicks alone (persona/engine/kept.py).

Attention is causal: a position's state depends on earlier positions alone. So what later clicks
read of it never changes: the normed state that enters each block and, with rotary positions, its
key. Other keys, and all values, are products of that state. Here these products are applied to the
query and the context, as for the newest position in `ServedBlock`. That halves the bytes of keys
and values, and reading kept states takes most of the time.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.operators import MASKED, rotate
from export.served import ServedBlock, ServedEncoder, can_rearrange
from model.network.config import EncoderConfig


def can_keep(config: EncoderConfig) -> bool:
    """Whether new clicks can be computed alone.

    A mean reads every position, candidates attend over all clicks, and the age of a click changes
    with the time of asking. The digest that finds a history covers its items alone, not columns.
    """
    plain = config.attention == "self" and config.pooling == "newest"
    alone = config.time == "none" and not config.columns  # clicks are items
    return plain and alone and can_rearrange(config)


def parts_kept(config: EncoderConfig) -> int:
    """The number of vectors of width D that are kept of each position."""
    return config.blocks * (2 if config.positions == "rotary" else 1)


class FirstClicks(nn.Module):
    """Whole histories: the outputs of `ServedEncoder`, and the states to keep."""

    def __init__(self, served: ServedEncoder) -> None:
        super().__init__()
        self.served = served

    def forward(self, item_ids: Tensor, key_mask: Tensor) -> tuple[Tensor, ...]:
        """(B, L) and (B, L) to the outputs, and what is kept, (parts, B, 1 + L, D)."""
        x, sequence = self.served.embed(item_ids, key_mask)  # (B, 1 + L, D)
        outputs, entering = self.served.read(x, sequence)
        kept = list[Tensor]()
        for block, states in zip(_blocks(self.served), entering, strict=True):
            kept += _kept(block, block.normed(states), sequence.positions)
        return (*outputs, torch.stack(kept))


class NextClicks(nn.Module):
    """New clicks alone: the embeddings, and the states to keep."""

    def __init__(self, served: ServedEncoder) -> None:
        super().__init__()
        self.served = served
        heads, width = served.config.heads, served.config.width
        of_head = torch.arange(width) // (width // heads) == torch.arange(heads)[:, None]
        self.register_buffer("of_head", of_head.float(), persistent=False)  # (H, D)

    def forward(
        self,
        item_ids: Tensor,
        positions: Tensor,
        attend: Tensor,
        newest: Tensor,
        *,
        kept: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """The embedding after the newest click of each history.

        Args:
            item_ids: (B, N) int64, at least one new click a history; padding may be any row.
            positions: (B, N) int64, of the new clicks, counted from the start token at 0.
            attend: (B, N H, P + N) bool, to which kept and new positions each head of a new click
                attends.
            newest: (B,) int64, the place of each history's newest click among all B N.
            kept: `parts_kept` times (B, P, D); padding may be any finite numbers.

        Returns:
            Embeddings (B, D), and what is kept of the new clicks, (parts, B, N, D).
        """
        width, heads = self.served.config.width, self.served.config.heads
        x = self._embed(item_ids, positions).reshape(-1, width)  # (B N, D)
        rest, own = iter(kept), []
        for block in _blocks(self.served):
            normed = block.normed(x)  # (B N, D)
            states = normed.reshape(*item_ids.shape, width)
            new = _kept(block, states, positions)
            own += new
            query = self._queries(block, normed, positions)  # (B, N H, D)
            seen = _attend(query, [next(rest) for _ in new], new, attend)  # (B, N H, D)
            x = block.finish(x, block.context_of_newest(seen.reshape(-1, heads * width)))
        return self.served.final_norm(F.embedding(newest, x)), torch.stack(own)

    def _embed(self, item_ids: Tensor, positions: Tensor) -> Tensor:
        x: Tensor = self.served.item_embedding(item_ids)  # (B, N, D)
        if self.served.config.embedding_scale != 1:
            x = x * self.served.config.embedding_scale
        if self.served.positions is not None:
            x = x + F.embedding(positions, self.served.positions)
        return x

    def _queries(self, block: ServedBlock, normed: Tensor, positions: Tensor) -> Tensor:
        """The queries of width D for the kept keys, one for each head, (B, N H, D)."""
        width = normed.shape[-1]
        if block.rotation is None:
            lifted: Tensor = block.scores_of_newest(normed)  # (B N, H D)
            return lifted.reshape(positions.shape[0], -1, width)
        query = block.query(normed).reshape(*positions.shape, width)
        query = rotate(query, positions, block.rotation).unsqueeze(2)  # (B, N, 1, D)
        # The other heads' features are 0, so the whole key can stay as it is.
        of_head = cast("Tensor", self.of_head)  # (H, D)
        return (query * of_head).reshape(positions.shape[0], -1, width)


def _blocks(served: ServedEncoder) -> list[ServedBlock]:
    return cast("list[ServedBlock]", list(served.blocks))


def _kept(block: ServedBlock, normed: Tensor, positions: Tensor) -> list[Tensor]:
    """What later clicks read: the rotated key, if there is one, and the normed states (B, L, D)."""
    if block.rotation is None:
        return [normed]
    key = block.key(normed.reshape(-1, normed.shape[-1])).reshape(normed.shape)
    return [rotate(key, positions, block.rotation), normed]


def _attend(query: Tensor, kept: Sequence[Tensor], new: Sequence[Tensor], mask: Tensor) -> Tensor:
    """The mean of the states that each query attends to, (B, N H, D).

    Kept and new ones are joined where they are scores, which are smaller than states.
    """
    scores = torch.cat((query @ kept[0].mT, query @ new[0].mT), dim=-1)  # (B, N H, P + N)
    weights = torch.softmax(torch.where(mask, scores, MASKED), dim=-1)
    sizes = [kept[0].shape[1], new[0].shape[1]]
    of_kept, of_new = torch.split(weights, sizes, dim=-1)
    seen: Tensor = of_kept @ kept[-1] + of_new @ new[-1]
    return seen
