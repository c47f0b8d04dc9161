"""The encoder as it is served: the same function, arranged for ONNX Runtime on a CPU.

It is built from a trained encoder's weights. The scale, the weighting and the bilinear map of the
scores are folded into the projection of the queries. Where all positions attend, one operator of
ONNX Runtime computes masks, softmax and context (export/operators.py). Where only the newest
position attends, the projections of query and keys become one matrix, unless rotary positions
stand between them, and so do the projections of values and output.

Measured for d 64, 2 blocks, one thread (ONNX Runtime 1.31), in microseconds at (1, 3), (1, 50),
(1, 200) and (32, 50): with plain operators 75, 170, 601, 3370; with these 49, 126, 472, 2853.
With rotary positions and SwiGLU of half the width 93, 180, 562, 3396; with these 62, 131, 438,
2791.
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from export.operators import (
    MASKED,
    causal_attention,
    causal_self_attention,
    causal_weights,
    reshape_like,
    rotate,
    split,
    take,
    turn,
)
from model.network.attention import Attention, Rotation, sequence_mask
from model.network.block import Block
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.reading import Candidates
from model.network.sequence import MaskedSequence
from model.network.time import Clock

LONG_PIECES = 6  # of the queries of a long history


def can_rearrange(config: EncoderConfig) -> bool:
    """Whether `ServedEncoder` has this architecture; any other encoder is exported as it is.

    Scores must be products of queries and keys. Rotary positions turn the queries after their
    projection, into which only a scale can then be folded. With time, the last block's queries
    are other states than its keys; only at the newest position does that cost nothing.
    """
    if config.time != "none" and (config.pooling != "newest" or config.attention != "self"):
        return False
    if config.positions == "rotary":
        return config.similarity in {"dot", "scaled_dot"} and config.normalisation == "softmax"
    return config.similarity != "additive"


class ServedEncoder(nn.Module):
    """A trained encoder, rearranged.

    Args:
        encoder: in eval mode; the weights that need no folding are shared with it.
        pieces: in which the queries attend; more than 1 pays for long histories only.
    """

    def __init__(self, encoder: UserEncoder, pieces: int = 1) -> None:
        super().__init__()
        self.config = config = encoder.config
        self.item_embedding, self.columns = encoder.item_embedding, encoder.columns
        start = encoder.start_embedding.detach()  # (D,)
        self.start = nn.Parameter(start)
        self.positions: nn.Parameter | None = None
        if encoder.position_embedding is not None:
            positions = encoder.position_embedding.weight.detach().clone()  # (1 + max_length, D)
            positions[0] += start
            self.positions = nn.Parameter(positions)
        blocks = cast("list[Block]", list(encoder.blocks))
        self.blocks = nn.ModuleList(ServedBlock(block, config, pieces) for block in blocks)
        self.gaps = encoder.gaps
        self.final_norm = encoder.final_norm
        self.pool = encoder.pool
        self.candidates = encoder.candidates

    def forward(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All outputs of the graphs of embeddings; each graph computes only its own.

        Args:
            item_ids: (B, L) int64.
            key_mask: (B, L) bool.
            times: (B, L) int64 seconds, of encoders that read time.
            asked: (B,) int64 seconds, likewise.
            columns: of encoders that read columns of clicks, (B, L) each.

        Returns:
            Embeddings (B, D), pooled attention (B, H, 1 + L) and full attention
            (B, blocks, H, 1 + L, 1 + L).
        """
        x, sequence = self.embed(item_ids, key_mask, times, asked, columns=columns)  # (B, 1 + L, D)
        outputs, _ = self.read(x, sequence)
        return outputs

    def read(
        self, x: Tensor, sequence: MaskedSequence
    ) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """The outputs, as `forward`, and the states that enter each block, (B, 1 + L, D)."""
        *earlier, last = self._blocks()
        attention, entering = [], [x]
        for block in earlier:
            attention.append(block.weights(x, sequence))  # (B, H, 1 + L, 1 + L)
            x = block.forward(x, sequence)  # (B, 1 + L, D)
            entering.append(x)
        attention.append(last.weights(x, sequence))
        if self.config.pooling == "newest":
            newest, pooled = last.at_newest(x, sequence)  # (B, D), (B, H, 1 + L)
            embedding = self.final_norm(newest)  # (B, D)
        else:
            states = self.final_norm(last.forward(x, sequence))  # (B, 1 + L, D)
            embedding, shares = self.pool(states, sequence.key_mask)  # (B, D), (B, 1 + L)
            pooled = (shares[:, None, None] @ attention[-1]).squeeze(2)  # (B, H, 1 + L)
        full = torch.stack(attention, dim=1)  # (B, blocks, H, 1 + L, 1 + L)
        full = sequence_mask(full, sequence.query_mask[:, None, None], "mul")
        return (embedding, pooled, full), entering

    def score(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        candidate_ids: Tensor,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """Scores of candidates by source-target attention, as `UserEncoder.score`."""
        x, sequence = self.embed(item_ids, key_mask, columns=columns)  # (B, 1 + L, D)
        for block in self._blocks():
            x = block.forward(x, sequence)
        states = self.final_norm(x)  # (B, 1 + L, D)
        if self.config.pooling == "newest":
            user = take(states, sequence.newest)  # (B, D)
        else:
            user, _ = self.pool(states, sequence.key_mask)  # (B, D)
        clicks, mask = states[:, 1:], key_mask[:, None, None]  # (B, L, D), (B, 1, 1, L)
        candidates = self.item_embedding(candidate_ids)  # (B, N, D)
        attend = cast("Candidates", self.candidates)
        return attend.forward(user.unsqueeze(1), clicks, mask, candidates)

    def embed(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, MaskedSequence]:
        """Start token and clicks with their positions, (B, 1 + L, D); any number at padding."""
        clock = None if times is None else Clock.at_newest(times, asked, key_mask)
        sequence = MaskedSequence(key_mask, self.config, clock)
        clicks = self.item_embedding(torch.where(key_mask, item_ids, 0))  # (B, L, D)
        if self.columns is not None:
            clicks = clicks + self.columns(columns, key_mask)
        if self.config.embedding_scale != 1:
            clicks = clicks * self.config.embedding_scale
        if self.positions is not None:  # the start token is in position 0
            places = F.embedding(sequence.positions, self.positions)  # (B, 1 + L, D)
            x = F.pad(clicks, (0, 0, 1, 0)) + places
        else:
            start = self.start.expand(item_ids.shape[0], 1, -1)
            x = torch.cat((start, clicks), dim=1)
        if self.gaps is not None and clock is not None:
            x = x + self.gaps(clock.since_previous())
        return x, sequence

    def _blocks(self) -> list["ServedBlock"]:
        return cast("list[ServedBlock]", list(self.blocks))


class ServedBlock(nn.Module):
    """A block in as few operators as ONNX Runtime has.

    States at padding hold arbitrary numbers: as keys they are masked, and no embedding is read from
    them.
    """

    def __init__(self, block: Block, config: EncoderConfig, pieces: int) -> None:
        super().__init__()
        attention = block.attention
        self.heads, self.post, self.pieces = config.heads, block.post, pieces
        self.time, self.asking = block.time, block.asking
        self.rotation: Rotation | None = None  # by positions alone, which are known beforehand
        if config.positions == "rotary" and config.time != "rotary":
            positions = torch.arange(config.max_length + 1)[None]
            self.rotation = Rotation.of(positions, config.width // config.heads)
        self.attention_norm, self.output = block.attention_norm, attention.output
        self.feed_forward_norm, self.feed_forward = block.feed_forward_norm, block.feed_forward
        self.query, self.key = folded_query(attention), attention.key
        layers = (self.query, self.key, attention.value)
        joint = torch.cat([layer.weight for layer in layers]).detach().T  # (D, 3 D)
        self.joint_weight = nn.Parameter(joint.contiguous())
        self.joint_bias = nn.Parameter(torch.cat([layer.bias for layer in layers]).detach())
        self.scores_of_newest = query_times_key(self.query, self.key, self.heads)
        self.context_of_newest = value_times_output(attention)

    def forward(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """States (B, 1 + L, D) after the block."""
        context = self._attend(self.normed(x), sequence)  # (B, 1 + L, D)
        # Flat for all that follows: ONNX Runtime adds a bias within products of matrices only.
        flat, context = (y.reshape(-1, x.shape[-1]) for y in (x, context))  # (B (1 + L), D)
        return reshape_like(self.finish(flat, self.output(context)), x)

    def weights(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """The attention weights of every position, (B, H, 1 + L, 1 + L)."""
        query, key, _ = self._project(self.normed(x), sequence)
        if self.asking is not None and sequence.clock is not None:
            asked = self.normed(x + self.asking(sequence.clock.gaps))
            query = self._turned(self.query(asked), sequence, sequence.asked_rotation)
        query, key = split(query, self.heads), split(key, self.heads)
        return causal_weights(query, key, sequence.key_mask, self._bias(sequence))

    def at_newest(self, x: Tensor, sequence: MaskedSequence) -> tuple[Tensor, Tensor]:
        """The state (B, D) and the attention weights (B, H, 1 + L) of the newest position."""
        keys = self.normed(x)  # (B, 1 + L, D)
        newest = take(x, sequence.newest)  # (B, D)
        if self.asking is not None and sequence.clock is not None:
            newest = newest + self.asking(sequence.clock.gap)
        scores = self._newest_scores(self.normed(newest), keys, sequence)  # (B, H, 1 + L)
        if self.time is not None and sequence.clock is not None:
            elapsed = sequence.clock.ages + sequence.clock.gap[:, None]  # (B, 1 + L)
            scores = scores + self.time(elapsed.unsqueeze(1)).squeeze(2)
        scores = torch.where(sequence.key_mask[:, None], scores, MASKED)
        weights = torch.softmax(scores, dim=-1)
        seen = (weights @ keys).flatten(1)  # (B, H D)
        return self.finish(newest, self.context_of_newest(seen)), weights

    def _newest_scores(self, newest: Tensor, keys: Tensor, sequence: MaskedSequence) -> Tensor:
        if sequence.rotation is None or sequence.asked_rotation is None:
            lifted: Tensor = self.scores_of_newest(newest)  # (B, H D)
            return lifted.reshape(-1, self.heads, keys.shape[-1]) @ keys.mT  # (B, H, 1 + L)
        query = self.query(newest).unsqueeze(1)  # (B, 1, D)
        if self.rotation is not None:
            query = rotate(query, sequence.positions.amax(1, keepdim=True), self.rotation)
        else:
            query = turn(query, sequence.asked_rotation.at(sequence.newest))
        # A product of matrices, for the bias's sake.
        key = self.key(keys.reshape(-1, keys.shape[-1])).reshape(keys.shape)  # (B, 1 + L, D)
        key = self._turned(key, sequence, sequence.rotation)
        return (split(query, self.heads) @ split(key, self.heads).mT).squeeze(2)

    def normed(self, x: Tensor) -> Tensor:
        """The input of the attention layer."""
        return x if self.post else cast("Tensor", self.attention_norm(x))

    def finish(self, x: Tensor, context: Tensor) -> Tensor:
        """The states after the block, from those before it and what its attention gives."""
        x = x + context
        if self.post:
            x = self.attention_norm(x)
            return cast("Tensor", self.feed_forward_norm(x + self.feed_forward(x)))
        return cast("Tensor", x + self.feed_forward(self.feed_forward_norm(x)))

    def _attend(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        if self.pieces > 1:
            return self._attend_in_pieces(x, sequence)
        added = self._bias(sequence)
        if sequence.rotation is None:
            joint = (self.joint_weight, self.joint_bias)
            return causal_self_attention(x, joint, sequence.key_mask, self.heads, added)
        return causal_attention(self._project(x, sequence), sequence.key_mask, self.heads, added)

    def _bias(self, sequence: MaskedSequence) -> Tensor | None:
        """What time adds to the scores of all positions, (B, H, 1 + L, 1 + L)."""
        if self.time is None or sequence.clock is None:
            return None
        return cast("Tensor", self.time(sequence.clock.elapsed(asked=self.asking is not None)))

    def _turned(self, x: Tensor, sequence: MaskedSequence, rotation: Rotation | None) -> Tensor:
        """Queries or keys (B, 1 + L, D), turned by positions, and by time."""
        if rotation is None:
            return x
        if self.rotation is not None:
            return rotate(x, sequence.positions, self.rotation)
        return turn(x, rotation)

    def _attend_in_pieces(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """The same, in pieces of the queries, each with no more keys than its last query can see.

        This leaves out most of the products that the causal mask hides, 5 of 12. It takes more
        operators, so it pays for long histories only.
        """
        query, key, value = (split(y, self.heads) for y in self._project(x, sequence))
        n = x.shape[1]
        # A key's score loses its distance ahead of the query times -MASKED; padding is ahead of
        # every query. In floats this takes half the time of comparing and selecting.
        place = torch.arange(n, dtype=x.dtype) * -MASKED  # (L,)
        key_place = torch.where(sequence.key_mask, place, torch.finfo(x.dtype).max)[:, None, None]
        added = self._bias(sequence)
        contexts = []
        for piece in range(self.pieces):
            start, end = n * piece // self.pieces, n * (piece + 1) // self.pieces
            ahead = torch.relu(key_place[..., :end] - place[start:end, None])  # (B, 1, l, k)
            scores = query[:, :, start:end] @ key[:, :, :end].mT - ahead  # (B, H, l, k)
            scores = scores if added is None else scores + added[:, :, start:end, :end]
            contexts.append(torch.softmax(scores, dim=-1) @ value[:, :, :end])
        return torch.cat(contexts, dim=2).transpose(1, 2).flatten(2)

    def _project(self, x: Tensor, sequence: MaskedSequence) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, 1 + L, D)."""
        flat = torch.addmm(self.joint_bias, x.reshape(-1, x.shape[-1]), self.joint_weight)
        query, key, value = flat.reshape(*x.shape[:-1], -1).chunk(3, dim=-1)
        query = self._turned(query, sequence, sequence.rotation)
        return query, self._turned(key, sequence, sequence.rotation), value


def folded_query(attention: Attention) -> nn.Linear:
    """The projection of queries whose plain product with the keys is the score."""
    query = attention.query
    affine = torch.cat((query.weight, query.bias[:, None]), dim=1)  # (D, D + 1)
    per_head = affine.view(attention.heads, -1, affine.shape[1]).mT  # (H, D + 1, d)
    folded = attention.scores.fold(per_head).mT.flatten(0, 1)  # (D, D + 1)
    return _layer(folded[:, :-1], folded[:, -1])


def query_times_key(query: nn.Linear, key: nn.Linear, heads: int) -> nn.Linear:
    """D to H D: q . (W_k x + b_k) is (W_k^T q) . x, and a term that cancels in the softmax."""
    per_head = (heads, -1, query.in_features)
    lift = key.weight.view(per_head)  # (H, d, D)
    weight = (lift.mT @ query.weight.view(per_head)).flatten(0, 1)  # (H D, D)
    bias = query.bias.view(heads, 1, -1) @ lift  # (H, 1, D)
    return _layer(weight, bias.flatten())


def value_times_output(attention: Attention) -> nn.Linear:
    """H D to D: values and output of a mean of positions, whose weights sum to 1."""
    heads, width = attention.heads, attention.output.out_features
    value = attention.value.weight.view(heads, -1, width)  # (H, d, D)
    output = attention.output.weight.view(width, heads, -1).transpose(0, 1)  # (H, D, d)
    weight = (output @ value).transpose(0, 1).flatten(1)  # (D, H D)
    return _layer(weight, attention.output(attention.value.bias))


def _layer(weight: Tensor, bias: Tensor) -> nn.Linear:
    layer = nn.Linear(weight.shape[1], weight.shape[0], device="meta")  # nothing to initialise
    layer.weight = nn.Parameter(weight.detach().contiguous())
    layer.bias = nn.Parameter(bias.detach().contiguous())
    return layer
