"""A transformer block: attention and feed-forward layer, each with norm and residual connection."""

from typing import cast

from torch import Tensor, nn
from torch.nn import functional as F

from model.network.attention import Attention, Rotation, sequence_mask
from model.network.config import EncoderConfig
from model.network.dropout import Dropout
from model.network.sequence import MaskedSequence, take
from model.network.time import TimeTable, time_bias


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
        self, x: Tensor, sequence: MaskedSequence, read: Tensor | None
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

    def fused(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
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

    def _asked(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """The states with what they know of the time of asking."""
        if self.asking is None or sequence.clock is None:
            return x
        return cast("Tensor", x + self.asking(sequence.clock.gaps))

    def _query_rotation(self, sequence: MaskedSequence) -> Rotation | None:
        return sequence.rotation if self.asking is None else sequence.asked_rotation

    def _bias(self, sequence: MaskedSequence) -> Tensor | None:
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
