"""New clicks of histories whose earlier clicks are kept; the graphs that `persona.engine.kept` uses.

Attention is causal: what a position is after a block depends on the positions before it alone. So
what later clicks read of it never changes: the normed state that enters each block and, with rotary
positions, its key. Other keys, and all values, are products of that state; these products stand
with the query and with the context here, as they do for the newest position in `ServedBlock`. That
takes half of the bytes of keys and values, and reading what is kept is what takes the time.
"""

from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.operators import MASKED, rotate, take
from export.served import ServedBlock, ServedEncoder, can_rearrange
from model.network.config import EncoderConfig


def can_keep(config: EncoderConfig) -> bool:
    """Whether new clicks can be computed alone.

    A mean over all positions reads all of them, candidates attend over all clicks, and how long ago
    a click was changes with the time of asking.
    """
    plain = config.attention == "self" and config.pooling == "newest" and config.time == "none"
    return plain and can_rearrange(config)


def parts_kept(config: EncoderConfig) -> int:
    """Vectors of width D that are kept of each position."""
    return config.blocks * (2 if config.positions == "rotary" else 1)


class FirstClicks(nn.Module):
    """Whole histories, and what is kept of them."""

    def __init__(self, served: ServedEncoder) -> None:
        super().__init__()
        self.served = served

    def forward(self, item_ids: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
        """(B, L) and (B, L) to embeddings (B, D) and what is kept, (parts, B, 1 + L, D)."""
        x, sequence = self.served.embed(item_ids, key_mask)  # (B, 1 + L, D)
        *earlier, last = _blocks(self.served)
        kept: list[Tensor] = []
        for block in earlier:
            kept += _kept(block, x, sequence.positions)
            x = block.forward(x, sequence)
        kept += _kept(last, x, sequence.positions)
        newest, _ = last.at_newest(x, sequence)  # (B, D)
        return self.served.final_norm(newest), torch.stack(kept)


class NextClicks(nn.Module):
    """New clicks alone, and what is kept of them."""

    def __init__(self, served: ServedEncoder) -> None:
        super().__init__()
        self.served = served
        heads, width = served.config.heads, served.config.width
        of_head = torch.arange(width) // (width // heads) == torch.arange(heads)[:, None]
        self.register_buffer("of_head", of_head.float(), persistent=False)  # (H, D)

    def forward(
        self, item_ids: Tensor, key_mask: Tensor, lengths: Tensor, *kept: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The embedding after the newest click of each history.

        Args:
            item_ids: (B, N) int64, at least one new click a history, padded on the right.
            key_mask: (B, N) bool.
            lengths: (B,) int64, how many positions are kept, the start token included.
            kept: `parts_kept` times (B, P, D), padded on the right with finite numbers.

        Returns:
            Embeddings (B, D), and what is kept of the new clicks, (parts, B, N, D).
        """
        new = torch.arange(item_ids.shape[1])
        positions = lengths[:, None] + new  # (B, N)
        x = self._embed(item_ids, key_mask, positions)  # (B, N, D)
        positions = positions.clamp(max=self.served.config.max_length)  # those of padding
        before = torch.arange(kept[0].shape[1]) < lengths[:, None]  # (B, P)
        causal = (new <= new[:, None])[None]  # (1, N, N)
        *earlier, last = _blocks(self.served)
        rest, own = iter(kept), []
        for block in earlier:
            own += (parts := _kept(block, x, positions))
            query = self._queries(block, x, positions)  # (B, N, H, D)
            context = _attend(query, _keys_and_values(block, rest), before, parts, causal)
            x = _after(block, x, context)
        own += (parts := _kept(last, x, positions))
        newest = key_mask.sum(1) - 1  # (B,)
        x, positions = take(x, newest).unsqueeze(1), lengths[:, None] + newest[:, None]
        query = self._queries(last, x, positions)  # (B, 1, H, D)
        causal = (new <= newest[:, None]).unsqueeze(1)  # (B, 1, N)
        context = _attend(query, _keys_and_values(last, rest), before, parts, causal)
        return self.served.final_norm(_after(last, x, context).squeeze(1)), torch.stack(own)

    def _embed(self, item_ids: Tensor, key_mask: Tensor, positions: Tensor) -> Tensor:
        x: Tensor = self.served.item_embedding(torch.where(key_mask, item_ids, 0))  # (B, N, D)
        if self.served.config.embedding_scale != 1:
            x = x * self.served.config.embedding_scale
        if self.served.positions is not None:
            x = x + F.embedding(positions.clamp(max=self.served.config.max_length), self.served.positions)
        return x

    def _queries(self, block: ServedBlock, x: Tensor, positions: Tensor) -> Tensor:
        """What meets the kept keys: a query of width D for each head, (B, N, H, D)."""
        normed = block.normed(x)  # (B, N, D)
        flat = normed.flatten(0, 1)  # a product of matrices, for the bias's sake
        if block.rotation is None:
            return block.scores_of_newest(flat).reshape(*x.shape[:2], block.heads, -1)
        query = rotate(block.query(flat).reshape(x.shape), positions, block.rotation)
        # The other heads' features are 0, so the whole key can stay as it is.
        return query.unsqueeze(2) * self.of_head


def _blocks(served: ServedEncoder) -> list[ServedBlock]:
    return cast("list[ServedBlock]", list(served.blocks))


def _kept(block: ServedBlock, x: Tensor, positions: Tensor) -> list[Tensor]:
    """What later clicks read of these states (B, L, D): key where it is turned, and normed state."""
    normed = block.normed(x)
    if block.rotation is None:
        return [normed]
    key = block.key(normed.reshape(-1, x.shape[-1])).reshape(x.shape)
    return [rotate(key, positions, block.rotation), normed]


def _keys_and_values(block: ServedBlock, kept: Iterator[Tensor]) -> list[Tensor]:
    return [next(kept)] if block.rotation is None else [next(kept), next(kept)]


def _attend(
    query: Tensor, kept: Sequence[Tensor], before: Tensor, own: Sequence[Tensor], causal: Tensor
) -> Tensor:
    """The mean of the states that each head attends to, (B, N, H D), from queries (B, N, H, D)."""
    batch, n, heads, width = query.shape
    flat = query.reshape(batch, n * heads, width)
    scores = torch.where(before.unsqueeze(1), flat @ kept[0].mT, MASKED)  # (B, N H, P)
    new = (flat @ own[0].mT).reshape(batch, n, heads, -1)  # (B, N, H, N)
    new = torch.where(causal.unsqueeze(2), new, MASKED).reshape(batch, n * heads, -1)
    weights = torch.softmax(torch.cat((scores, new), dim=-1), dim=-1)  # (B, N H, P + N)
    n_kept = kept[0].shape[1]
    seen = weights[..., :n_kept] @ kept[-1] + weights[..., n_kept:] @ own[-1]  # (B, N H, D)
    return seen.reshape(batch, n, heads * width)


def _after(block: ServedBlock, x: Tensor, context: Tensor) -> Tensor:
    """States (B, N, D) after the block."""
    flat = block.finish(x.flatten(0, 1), block.context_of_newest(context.flatten(0, 1)))
    return flat.reshape(x.shape)
