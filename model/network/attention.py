"""Attention of every kind, from three choices and two masks.

For queries Q, keys K and values V, query i attends to the keys j through

    s_ij = f_sim(q_i, k_j)          similarity
    a_i  = f_norm(s_i)              normalisation over j, on allowed keys only
    c_i  = sum_j a_ij v_j           context

*Which states are compared*: self-attention takes Q, K and V from one history; source-target
attention takes Q from elsewhere, here a candidate item. Both are multi-head (Vaswani 2017,
"Attention Is All You Need"): H heads of width d = D / H attend independently and are joined.

*Similarity* is the sum over d of a vector of terms t_ij:

    dot          t_ij = q_i * k_j                        Luong 2015
    scaled_dot   t_ij = q_i * k_j / sqrt(d)              Vaswani 2017
    general      t_ij = q_i * (W k_j)                    Luong 2015, bilinear q^T W k
    additive     t_ij = w * tanh(W1 q_i + W2 k_j + b)    Bahdanau 2014

*Normalisation*: `softmax` takes the plain sum of the terms, exp(s_ij) / sum_j exp(s_ij), with
s_ij = sum t_ij. `weighted_softmax` learns its own weighting u of the terms,
exp(u . t_ij) / sum_j exp(u . t_ij). Additive attention's w is such a weighting already, so for it
both normalisations are the same family.

*Masks* (True = attend): the key mask acts on scores before the normalisation, so that padding
gets weight exactly 0. The query mask acts on outputs after it, because a padded query still
attends to real keys.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Similarity = Literal["dot", "scaled_dot", "additive", "general"]
Normalisation = Literal["softmax", "weighted_softmax"]
MaskMode = Literal["add", "mul"]
PaddingSide = Literal["left", "right"]

SIMILARITIES: tuple[Similarity, ...] = get_args(Similarity)
NORMALISATIONS: tuple[Normalisation, ...] = get_args(Normalisation)


def mask_from_lengths(lengths: Tensor, length: int, padding_side: PaddingSide) -> Tensor:
    """The boolean mask of rows padded to `length`.

    Args:
        lengths: number of real positions in each row, (B,) int.
        length: the padded length L.
        padding_side: the side of the padding.

    Returns:
        (B, L) bool, True on real positions.
    """
    index = torch.arange(length, device=lengths.device)
    if padding_side == "left":
        # Not arange(L - 1, -1, -1): it exports to an ONNX Range that yields nothing.
        index = (length - 1) - index
    return index < lengths[:, None]


def sequence_mask(x: Tensor, mask: Tensor, mode: MaskMode) -> Tensor:
    """Masks scores before the normalisation (`add`) or values after it (`mul`).

    The names come from the usual `x - (1 - mask) * 1e12` and `x * mask`. Both modes select
    instead: 1e12 overflows fp16 and erases fp32 scores, and 0 * NaN is NaN.

    Args:
        x: scores or values, any floating dtype.
        mask: bool, broadcastable to x, True where x is kept.
        mode: `add` writes the dtype's lowest finite number where masked, `mul` writes 0.
    """
    masked = torch.finfo(x.dtype).min if mode == "add" else 0.0
    return x.masked_fill(~mask, masked)


def masked_softmax(scores: Tensor, mask: Tensor) -> Tensor:
    """Softmax over the last axis with weight exactly 0 where masked.

    A fully masked row gets weights 0 and gradients 0, never NaN: the lowest finite number in
    place of -inf keeps the softmax finite, and the second mask sets the row to 0.
    """
    weights = torch.softmax(sequence_mask(scores, mask, "add"), dim=-1)
    return sequence_mask(weights, mask, "mul")


def position_angles(positions: Tensor, count: int) -> Tensor:
    """Angles (B, L, count) of positions (B, L), whose frequencies fall from 1 to 1 / 10,000."""
    exponent = torch.arange(count, device=positions.device) / count
    angles: Tensor = positions.unsqueeze(-1) * (10_000.0**-exponent)
    return angles


@dataclass(frozen=True)
class Rotation:
    """Rotary positions (Su 2021, "RoFormer"): turns pairs of features by position * frequency.

    A score of rotated queries and keys depends on the distance of their positions alone.
    """

    cos: Tensor  # (B, 1, L, d / 2)
    sin: Tensor  # (B, 1, L, d / 2)

    @classmethod
    def of(cls, positions: Tensor, head_width: int) -> "Rotation":
        """The rotation of positions (B, L) for heads of width d."""
        return cls.by(position_angles(positions, head_width // 2))

    @classmethod
    def by(cls, angles: Tensor) -> "Rotation":
        """The rotation by angles (B, L, d / 2)."""
        angles = angles.unsqueeze(1)  # (B, 1, L, d / 2)
        return cls(angles.cos(), angles.sin())

    def rotate(self, x: Tensor) -> Tensor:
        """Rotates (B, H, L, d)."""
        first, second = x.chunk(2, dim=-1)
        cos, sin = self.cos.to(x.dtype), self.sin.to(x.dtype)
        turned = (first * cos - second * sin, first * sin + second * cos)
        return torch.cat(turned, dim=-1)

    def at(self, positions: Tensor) -> "Rotation":
        """The rotation at one position per row, (B,) to (B, 1, 1, d / 2)."""
        index = positions[:, None, None, None].expand(-1, -1, -1, self.cos.shape[-1])
        return Rotation(self.cos.gather(2, index), self.sin.gather(2, index))


class Scores(nn.Module):
    """Scores of queries and keys: the similarity, and the weighting of its terms.

    Weightings start at 1 and W at the identity, so that `general` and `weighted_softmax` start
    as the dot product that they generalise. Additive's w starts small and random, to break the
    symmetry of its terms.
    """

    def __init__(
        self, similarity: Similarity, normalisation: Normalisation, heads: int, head_width: int
    ) -> None:
        super().__init__()
        self.similarity = similarity
        self.normalisation = normalisation
        d = head_width
        if similarity == "general":
            self.bilinear = nn.Parameter(torch.eye(d).repeat(heads, 1, 1))  # W
        if similarity == "additive":
            self.query_projection = nn.Parameter(torch.randn(heads, d, d) / math.sqrt(d))  # W1
            self.key_projection = nn.Parameter(torch.randn(heads, d, d) / math.sqrt(d))  # W2
            self.bias = nn.Parameter(torch.zeros(heads, 1, d))  # b
        # w of the additive similarity or u of the weighted softmax: both weight the terms.
        if similarity == "additive":
            self.term_weight = nn.Parameter(torch.randn(heads, 1, d) / math.sqrt(d))
        elif normalisation == "weighted_softmax":
            self.term_weight = nn.Parameter(torch.ones(heads, 1, d))

    def fold(self, queries: Tensor) -> Tensor:
        """Queries whose plain dot product with the keys is the score; not for `additive`.

        Scales and weightings of the terms apply to the query, and q . (W k) = (W^T q) . k.
        """
        if self.similarity == "scaled_dot":
            queries = queries / math.sqrt(queries.shape[-1])
        if self.normalisation == "weighted_softmax":
            queries = queries * self.term_weight
        if self.similarity == "general":
            # After the weighting, because the terms are q * (W k).
            queries = queries @ self.bilinear
        return queries

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores every query (B, H, Lq, d) with every key (B, H, Lk, d): (B, H, Lq, Lk)."""
        if self.similarity != "additive":
            return self.fold(queries) @ keys.mT
        q = queries @ self.query_projection.mT  # (B, H, Lq, d)
        k = keys @ self.key_projection.mT + self.bias  # (B, H, Lk, d)
        terms = torch.tanh(q.unsqueeze(-2) + k.unsqueeze(-3))  # (B, H, Lq, Lk, d)
        return (terms @ self.term_weight.unsqueeze(-1)).squeeze(-1)


class Attention(nn.Module):
    """Multi-head attention of any kind: projections, scores, masked normalisation, context."""

    def __init__(
        self, width: int, heads: int, similarity: Similarity, normalisation: Normalisation
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} does not divide into {heads} heads")
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.output = nn.Linear(width, width)
        self.scores = Scores(similarity, normalisation, heads, width // heads)

    def forward(
        self,
        queries: Tensor,
        keys: Tensor,
        mask: Tensor,
        query_rotation: Rotation | None = None,
        key_rotation: Rotation | None = None,
        *,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Attends from queries to keys; the values are projections of the keys.

        Args:
            queries: (B, Lq, D); the same tensor as the keys in self-attention.
            keys: (B, Lk, D).
            mask: bool, broadcastable to (B, H, Lq, Lk), True = attend.
            query_rotation: rotary positions of the queries.
            key_rotation: rotary positions of the keys.
            bias: added to the scores, (B, H, Lq, Lk).

        Returns:
            Context (B, Lq, D) and weights (B, H, Lq, Lk). Masked keys have weight exactly 0.
            Rows sum to 1; a fully masked row is 0.
        """
        q, k, v = self._project(queries, keys, query_rotation, key_rotation)
        scores = self.scores(q, k)  # (B, H, Lq, Lk)
        weights = masked_softmax(scores if bias is None else scores + bias, mask)
        return self._join(weights @ v), weights

    def context(
        self,
        queries: Tensor,
        keys: Tensor,
        mask: Tensor,
        query_rotation: Rotation | None = None,
        key_rotation: Rotation | None = None,
        *,
        bias: Tensor | None = None,
    ) -> Tensor:
        """The context of `forward` without the weights, by a fused kernel where that is faster.

        The kernel computes dot products, so `additive` cannot use it. In bf16 on a CPU it is
        slower: 15 ms, forward and backward at (40, 1, 201, 64), against 7 ms for `forward`.
        """
        half_on_cpu = queries.device.type == "cpu" and torch.is_autocast_enabled("cpu")
        if self.scores.similarity == "additive" or half_on_cpu:
            return self.forward(queries, keys, mask, query_rotation, key_rotation, bias=bias)[0]
        q, k, v = self._project(queries, keys, query_rotation, key_rotation)
        q = self.scores.fold(q)
        mask = mask if bias is None else sequence_mask(bias, mask, "add")
        return self._join(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=1.0))

    def _project(
        self,
        queries: Tensor,
        keys: Tensor,
        query_rotation: Rotation | None,
        key_rotation: Rotation | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        q = self._split(self.query(queries))  # (B, H, Lq, d)
        k = self._split(self.key(keys))  # (B, H, Lk, d)
        v = self._split(self.value(keys))  # (B, H, Lk, d)
        q = q if query_rotation is None else query_rotation.rotate(q)
        k = k if key_rotation is None else key_rotation.rotate(k)
        return q, k, v

    def _split(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        return x.reshape(batch, length, self.heads, width // self.heads).transpose(1, 2)

    def _join(self, context: Tensor) -> Tensor:
        joined = context.transpose(1, 2)
        if torch.compiler.is_exporting():  # a context that is traced has other strides than its own
            joined = joined.clone(memory_format=torch.contiguous_format)
        out: Tensor = self.output(joined.flatten(2))  # (B, H, Lq, d) to (B, Lq, D)
        return out
