"""The user encoder: item ids and a key mask to user embeddings, top to bottom in one file.

A start token precedes the history. Transformer blocks with causal self-attention follow, with the
query mask after every block and after the final norm, then a pooling into the user embedding. The
item table is tied: it embeds clicks and scores next clicks (SASRec, Kang and McAuley 2018, with
full softmax cross-entropy).
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, cast, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from model.network.attention import (
    NORMALISATIONS,
    SIMILARITIES,
    Attention,
    Normalisation,
    Rotation,
    Similarity,
    masked_softmax,
    position_angles,
    sequence_mask,
)
from model.network.dropout import Dropout
from model.network.item_table import ItemTable
from model.network.time import (
    TIME_KINDS,
    Clock,
    TimeKind,
    TimeTable,
    time_angles,
    time_bias,
)

AttentionKind = Literal["self", "source_target"]
Pooling = Literal["newest", "mean", "additive"]
Positions = Literal["learned", "rotary", "none"]
Norm = Literal["pre", "post"]


@dataclass(frozen=True)
class EncoderConfig:
    """Every choice of the network; the artifact's manifest shows them.

    Raises:
        ValueError: a choice is unknown, out of range, or does not fit another.
    """

    attention: AttentionKind = "self"  # source_target adds candidates that attend over clicks
    similarity: Similarity = "scaled_dot"  # of a query and a key
    normalisation: Normalisation = "softmax"  # of scores into weights
    pooling: Pooling = "newest"  # of positions into one user embedding
    positions: Positions = "learned"  # counted over real clicks from the oldest, start token 0
    embedding_scale: float = 1.0  # factor of a click's input embedding; SASRec has sqrt(width)
    time: TimeKind = "none"  # of clicks and of asking; see model/network/time.py
    width: int = 64  # D, of every state and embedding
    blocks: int = 2
    norm: Norm = "pre"  # pre normalises a layer's input, post its residual sum
    heads: int = 2
    feed_forward: int = 4  # hidden width of the feed-forward layer, in multiples of the width
    gated: bool = False  # SwiGLU in place of GELU
    max_length: int = 200  # the newest clicks, which the encoder reads
    dropout: float = 0.1  # of embeddings and of every residual branch

    # Recipes are read through pydantic: a misspelt field is an error there too.
    __pydantic_config__: ClassVar[dict[str, str]] = {"extra": "forbid"}

    def __post_init__(self) -> None:
        choices = {
            "attention": get_args(AttentionKind),
            "similarity": SIMILARITIES,
            "normalisation": NORMALISATIONS,
            "pooling": get_args(Pooling),
            "positions": get_args(Positions),
            "time": TIME_KINDS,
            "norm": get_args(Norm),
        }
        for field, allowed in choices.items():
            if getattr(self, field) not in allowed:
                raise ValueError(f"{field} is {getattr(self, field)!r}, not one of {allowed}")
        for field in ("width", "blocks", "heads", "feed_forward", "max_length"):
            if getattr(self, field) < 1:
                raise ValueError(f"{field} is {getattr(self, field)}, at least 1 is needed")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout is {self.dropout}, at least 0 and below 1 is needed")
        if not 0 < self.embedding_scale < math.inf:
            raise ValueError(f"embedding_scale is {self.embedding_scale}, above 0 is needed")
        if self.width % self.heads:
            raise ValueError(f"width {self.width} does not divide into {self.heads} heads")
        if self.positions == "rotary":
            self._check_rotary()
        if self.time == "rotary" and self.positions != "rotary":
            raise ValueError(f"rotary time needs rotary positions beside it, not {self.positions}")

    def _check_rotary(self) -> None:
        if self.similarity == "additive":
            raise ValueError("rotary positions need a product of queries and keys, not additive")
        of, times = ("time", 4) if self.time == "rotary" else ("positions", 2)
        if (self.width // self.heads) % times:
            raise ValueError(
                f"rotary {of} need a head width that {times} divides, not "
                f"{self.width // self.heads}"
            )


class FeedForward(nn.Module):
    """Two linear layers at every position, with GELU or a gate (Shazeer 2020, SwiGLU)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        hidden = config.feed_forward * config.width
        self.gate = nn.Linear(config.width, hidden) if config.gated else None
        self.inner = nn.Linear(config.width, hidden)
        self.outer = nn.Linear(hidden, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(B, L, D) to (B, L, D)."""
        if self.gate is None:
            hidden = F.gelu(self.inner(x))  # (B, L, 4 D)
        else:
            hidden = F.silu(self.gate(x)) * self.inner(x)  # (B, L, 4 D)
        out: Tensor = self.outer(hidden)
        return out


class Block(nn.Module):
    """Attention, then the feed-forward layer, then the query mask.

    Each layer has a residual connection: x + layer(norm(x)) with norm `pre` (Xiong 2020),
    norm(x + layer(x)) with norm `post` (Vaswani 2017).
    """

    def __init__(self, config: EncoderConfig, *, last: bool = False) -> None:
        super().__init__()
        self.post = config.norm == "post"
        self.time = time_bias(config.time, config.heads)
        self.asking = TimeTable(config.width) if last and config.time != "none" else None
        self.attention_norm = nn.LayerNorm(config.width)
        self.attention = Attention(
            config.width, config.heads, config.similarity, config.normalisation
        )
        self.feed_forward_norm = nn.LayerNorm(config.width)
        self.feed_forward = FeedForward(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, x: Tensor, sequence: "MaskedSequence", read: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The states after this block and its weights, at all positions or at one per row.

        Args:
            x: states (B, 1 + L, D).
            sequence: masks and positions of the batch.
            read: (B,) indices into 1 + L, or None for all positions. An embedding that is read
                from one position needs only that position of the last block.

        Returns:
            States (B, 1 + L, D) and weights (B, H, 1 + L, 1 + L); with `read` (B, D) and
            (B, H, 1, 1 + L).
        """
        keys = self._normed(x)  # (B, 1 + L, D)
        asked, rotation = self._asked(x, sequence), self._query_rotation(sequence)
        bias = self._bias(sequence)
        if read is None:
            queries = self._normed(asked)  # (B, 1 + L, D)
            context, weights = self.attention(
                queries, keys, sequence.attend_mask, rotation, sequence.rotation, bias=bias
            )
            return sequence_mask(self._finish(asked, context), sequence.query_mask, "mul"), weights
        asked = take(asked, read)  # (B, D)
        query, mask = self._normed(asked).unsqueeze(1), sequence.key_mask[:, None, None]
        rotation = None if rotation is None else rotation.at(read)
        if bias is not None:
            index = read[:, None, None, None].expand(-1, bias.shape[1], 1, bias.shape[3])
            bias = bias.gather(2, index)  # (B, H, 1, 1 + L)
        # No causal mask: every real click is at or before `read`.
        context, weights = self.attention(query, keys, mask, rotation, sequence.rotation, bias=bias)
        return self._finish(asked, context.squeeze(1)), weights

    def fused(self, x: Tensor, sequence: "MaskedSequence") -> Tensor:
        """The states of `forward` at all positions, without the weights; faster."""
        asked, rotation = self._asked(x, sequence), self._query_rotation(sequence)
        context = self.attention.context(
            self._normed(asked),
            self._normed(x),
            sequence.attend_mask,
            rotation,
            sequence.rotation,
            bias=self._bias(sequence),
        )
        return sequence_mask(self._finish(asked, context), sequence.query_mask, "mul")

    def _asked(self, x: Tensor, sequence: "MaskedSequence") -> Tensor:
        """The states with what they know of the time of asking."""
        if self.asking is None or sequence.clock is None:
            return x
        return cast("Tensor", x + self.asking(sequence.clock.gaps))

    def _query_rotation(self, sequence: "MaskedSequence") -> Rotation | None:
        return sequence.rotation if self.asking is None else sequence.asked_rotation

    def _bias(self, sequence: "MaskedSequence") -> Tensor | None:
        """What time adds to the scores, (B, H, 1 + L, 1 + L)."""
        if self.time is None or sequence.clock is None:
            return None
        elapsed = sequence.clock.elapsed(asked=self.asking is not None)  # (B, 1 + L, 1 + L)
        return cast("Tensor", self.time(elapsed))

    def _normed(self, x: Tensor) -> Tensor:
        """The input of the attention layer."""
        return x if self.post else cast("Tensor", self.attention_norm(x))

    def _finish(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + self.dropout(context)
        if self.post:
            x = self.attention_norm(x)
            return cast("Tensor", self.feed_forward_norm(x + self.dropout(self.feed_forward(x))))
        out: Tensor = x + self.dropout(self.feed_forward(self.feed_forward_norm(x)))
        return out


class MaskedSequence:
    """Masks and positions of a batch; position 0 is the start token.

    Positions count real clicks, so padding does not change them.
    """

    def __init__(self, key_mask: Tensor, config: EncoderConfig, clock: Clock | None = None) -> None:
        if clock is None and config.time != "none":
            raise ValueError("this encoder reads time, and was given no times of the clicks")
        self.clock = clock
        self.key_mask = F.pad(key_mask, (1, 0), value=True)  # (B, 1 + L)
        counted = self.key_mask.int().cumsum(1, dtype=torch.int32)
        self.positions = counted - 1  # (B, 1 + L), start token 0
        self.newest = self.positions.argmax(1)  # (B,) newest click, or the start token
        index = torch.arange(self.key_mask.shape[1], device=key_mask.device)
        causal_mask = index[None, :] <= index[:, None]  # (1 + L, 1 + L)
        self.attend_mask = causal_mask & self.key_mask[:, None, None, :]  # (B, 1, 1 + L, 1 + L)
        self.query_mask = self.key_mask[:, :, None]  # (B, 1 + L, 1)
        self.rotation: Rotation | None = None
        self.asked_rotation: Rotation | None = None
        if config.positions == "rotary":
            self._rotate(config.width // config.heads, config.time)

    def _rotate(self, head_width: int, time: TimeKind) -> None:
        if time != "rotary" or self.clock is None:
            self.rotation = self.asked_rotation = Rotation.of(self.positions, head_width)
            return
        by_position = position_angles(self.positions, head_width // 4)  # (B, 1 + L, d / 4)
        ages, gaps = self.clock.ages, self.clock.gaps
        self.rotation, self.asked_rotation = (
            Rotation.by(torch.cat((by_position, time_angles(t, head_width // 4)), dim=-1))
            for t in (-ages, gaps - ages)
        )


class Pool(nn.Module):
    """Pools the states of all positions into a user embedding.

    newest: the state of the newest click. mean: the mean of all states. additive: their mean
    weighted by softmax(v . tanh(W h + b)) with a learned query v (Wu 2019, NRMS). The start token
    takes part, so an empty history has an embedding.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.kind = config.pooling
        if self.kind == "additive":
            self.project = nn.Linear(config.width, config.width)
            self.query = nn.Parameter(torch.randn(config.width) / math.sqrt(config.width))

    def _scores(self, states: Tensor) -> Tensor:
        if self.kind == "mean":
            return torch.zeros_like(states[..., 0])
        return torch.tanh(self.project(states)) @ self.query

    def forward(self, states: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Pools (B, 1 + L, D) into embeddings (B, D) and returns the weights (B, 1 + L) too."""
        weights = masked_softmax(self._scores(states), key_mask)
        return (weights.unsqueeze(1) @ states).squeeze(1), weights

    def running(self, states: Tensor, key_mask: Tensor) -> Tensor:
        """Pools the states up to every position, (B, 1 + L, D) to (B, 1 + L, D), for training.

        Masked positions are unspecified.
        """
        if self.kind == "newest":
            return states
        scores = sequence_mask(self._scores(states), key_mask, "add")
        # The shift of each row keeps exp within range and cancels in the quotient.
        shifted = torch.exp(scores - scores.amax(1, keepdim=True).detach())
        weights = sequence_mask(shifted, key_mask, "mul").unsqueeze(-1)
        total = weights.cumsum(1).clamp_min(torch.finfo(weights.dtype).tiny)
        return (weights * states).cumsum(1) / total


class Candidates(nn.Module):
    """Source-target attention: a candidate item attends over the user's clicks.

    The score is the dot product of the candidate with the sum of context and user embedding.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(
            config.width, config.heads, config.similarity, config.normalisation
        )

    def forward(
        self, user_embedding: Tensor, clicks: Tensor, mask: Tensor, candidates: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Scores candidates for each user.

        Args:
            user_embedding: (B, 1 or N, D).
            clicks: states of the clicks, without the start token, (B, L, D).
            mask: bool, broadcastable to (B, H, N, L), True = attend.
            candidates: item embeddings (B, N, D).

        Returns:
            Scores (B, N); weights (B, N, H, L), 0 for an empty history.
        """
        context, weights = self.attention(candidates, clicks, mask)  # (B, N, D), (B, H, N, L)
        scores = ((user_embedding + context) * candidates).sum(-1)  # (B, N)
        return scores, weights.transpose(1, 2)


class UserEncoder(nn.Module):
    """Click histories to user embeddings of width D.

    Args:
        config: the architecture.
        n_items: size of the catalogue. Row n_items of the table belongs to unknown items.
        items: the item table, where it reads features of the items.
    """

    def __init__(self, config: EncoderConfig, n_items: int, items: ItemTable | None = None) -> None:
        super().__init__()
        self.config = config
        self.n_items = n_items
        self.item_embedding = items or nn.Embedding(n_items + 1, config.width)
        self.start_embedding = nn.Parameter(torch.empty(config.width))
        self.position_embedding = (
            nn.Embedding(config.max_length + 1, config.width)
            if config.positions == "learned"
            else None
        )
        self.blocks = nn.ModuleList(
            Block(config, last=n == config.blocks) for n in range(1, config.blocks + 1)
        )
        self.gaps = TimeTable(config.width) if config.time == "gaps" else None
        self.final_norm = nn.LayerNorm(config.width)
        self.pool = Pool(config)
        self.candidates = Candidates(config) if config.attention == "source_target" else None
        self.dropout = Dropout(config.dropout)
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
            if isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)
        nn.init.normal_(self.start_embedding, std=0.02)

    def embed(
        self, item_ids: Tensor, key_mask: Tensor, clock: Clock | None = None
    ) -> tuple[Tensor, MaskedSequence]:
        """Embeds start token and clicks with their positions, (B, 1 + L, D); padding is 0."""
        # The ids of padding must not matter, even if they are out of range.
        clicks = self.item_embedding(torch.where(key_mask, item_ids, 0))  # (B, L, D)
        if self.config.embedding_scale != 1:
            clicks = clicks * self.config.embedding_scale
        start = self.start_embedding.expand(item_ids.shape[0], 1, -1)  # len() would export as 2
        x = torch.cat((start, clicks), dim=1)  # (B, 1 + L, D)
        sequence = MaskedSequence(key_mask, self.config, clock)
        if self.position_embedding is not None:
            x = x + self.position_embedding(sequence.positions)
        if self.gaps is not None and clock is not None:
            x = x + self.gaps(clock.since_previous())
        return sequence_mask(self.dropout(x), sequence.query_mask, "mul"), sequence

    def states(
        self, item_ids: Tensor, key_mask: Tensor, clock: Clock | None = None
    ) -> tuple[Tensor, MaskedSequence]:
        """The state of every position after the final norm, (B, 1 + L, D).

        Args:
            item_ids: (B, L) int64 rows of the item table, oldest to newest.
            key_mask: (B, L) bool, True on real clicks; padding may be on either side.
            clock: of an encoder that reads time.
        """
        x, sequence = self.embed(item_ids, key_mask, clock)
        for block in self._blocks():
            x = block.fused(x, sequence)
        return sequence_mask(self.final_norm(x), sequence.query_mask, "mul"), sequence

    def encode(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The user embedding after the newest click, and the weights of the positions behind it.

        From item_ids and key_mask (B, L) to embeddings (B, D), and the last block's weights
        averaged by the pooling, (B, H, 1 + L), whose rows sum to 1. With pooling `newest` the last
        block computes the newest position only. An encoder that reads time needs `times` (B, L), in
        int64 seconds; `asked` (B,) is the time of asking, by default that of the newest click.
        """
        x, sequence = self.embed(item_ids, key_mask, self._clock(times, asked, key_mask))
        *earlier, last = self._blocks()
        for block in earlier:
            x, _ = block.forward(x, sequence, None)
        if self.config.pooling == "newest":
            newest, weights = last.forward(x, sequence, sequence.newest)  # (B, D), (B, H, 1, 1 + L)
            return self.final_norm(newest), weights.squeeze(2)
        x, weights = last.forward(x, sequence, None)
        embedding, shares = self.pool(self.final_norm(x), sequence.key_mask)  # (B, D), (B, 1 + L)
        return embedding, (shares[:, None, None, :] @ weights).squeeze(2)

    def encode_full(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The user embedding with the weights of every block at every position.

        From item_ids and key_mask (B, L) to embeddings (B, D) and weights
        (B, blocks, H, 1 + L, 1 + L). Rows of padded queries are 0. Times are as for `encode`.
        """
        x, sequence = self.embed(item_ids, key_mask, self._clock(times, asked, key_mask))
        per_block = []
        for block in self._blocks():
            x, weights = block.forward(x, sequence, None)
            per_block.append(sequence_mask(weights, sequence.query_mask[:, None], "mul"))
        embedding = self._read(self.final_norm(x), sequence)
        return embedding, torch.stack(per_block, dim=1)

    def _read(self, states: Tensor, sequence: MaskedSequence) -> Tensor:
        if self.config.pooling == "newest":
            return take(states, sequence.newest)
        embedding: Tensor = self.pool(states, sequence.key_mask)[0]
        return embedding

    def _blocks(self) -> list[Block]:
        return cast("list[Block]", list(self.blocks))

    def _clock(self, times: Tensor | None, asked: Tensor | None, key_mask: Tensor) -> Clock | None:
        if self.config.time == "none" or times is None:
            return None
        return Clock.at_newest(times, asked, key_mask)

    def score(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        candidate_ids: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Scores candidates by source-target attention.

        From item_ids and key_mask (B, L) and candidate_ids (B, N) to scores (B, N) and weights
        (B, N, H, L). Times are as for `encode`.

        Raises:
            ValueError: the architecture is not `source_target`.
        """
        if self.candidates is None:
            raise ValueError("scores by attention need attention = 'source_target'")
        clock = self._clock(times, asked, key_mask)
        states, sequence = self.states(item_ids, key_mask, clock)
        user = self._read(states, sequence).unsqueeze(1)  # (B, 1, D)
        embedded = self.item_embedding(candidate_ids)  # (B, N, D)
        mask = key_mask[:, None, None, :]
        scores: tuple[Tensor, Tensor] = self.candidates(user, states[:, 1:], mask, embedded)
        return scores

    def logits(self, user_embedding: Tensor) -> Tensor:
        """Score of every item by the tied table, (..., D) to (..., n_items)."""
        return user_embedding @ self.item_embedding.weight[: self.n_items].mT

    def with_plain_table(self) -> "UserEncoder":
        """The same encoder, the vectors of its items written out as an `nn.Embedding`."""
        plain, table = UserEncoder(self.config, self.n_items), "item_embedding."
        weights = {k: v for k, v in self.state_dict().items() if not k.startswith(table)}
        weights[f"{table}weight"] = self.item_embedding.weight.detach()
        plain.load_state_dict(weights)
        return plain.eval()


def take(x: Tensor, positions: Tensor) -> Tensor:
    """Takes one position per row: (B, L, D) at (B,) to (B, D)."""
    return x.gather(1, positions[:, None, None].expand(-1, 1, x.shape[-1])).squeeze(1)
