"""The encoder as it is served: the same function, rearranged for ONNX Runtime on a CPU.

What a product of queries and keys is scaled, weighted or mapped by goes into the projection of
the queries. Where all positions attend, ONNX Runtime's own operator does projections, masks,
softmax and context at once; where one does, its projection and the keys' are made one product
beforehand, and so are the values' and the output's. Both are compared with the trained encoder
before they are shipped.

Measured for d 64, 2 blocks, one thread (ONNX Runtime 1.31), in microseconds at (1, 3), (1, 50),
(1, 200) and (32, 50): with plain operators 75, 170, 601, 3370; with these 49, 126, 472, 2853.
"""

import copy

import torch
from torch import Tensor, nn

from model.attention import Attention, Scores
from model.encoder import Block, MaskedSequence, UserEncoder, take

MASKED = -1e30  # added to scores: exp underflows to 0 beside any key, and twice of it is finite


class FlatLinear(nn.Linear):
    """A layer over (B L, D): ONNX Runtime fuses the bias of a product of matrices only."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) to (..., out)."""
        if x.ndim == 2:
            return super().forward(x)
        flat = super().forward(x.reshape(-1, x.shape[-1]))
        return flat.reshape(*x.shape[:-1], self.out_features)


class BiasedAttention(Attention):
    """Attention of rows that all have a key, because the start token always is one.

    So the mask can be added as a bias, which ONNX Runtime does faster than selecting, and
    needs no second look after the softmax: beside a real key, exp underflows to exactly 0.
    """

    def normalise(self, scores: Tensor, mask: Tensor) -> Tensor:
        """Softmax over allowed keys."""
        zero, low = torch.zeros(()), torch.full((), torch.finfo(scores.dtype).min)
        return torch.softmax(scores + torch.where(mask, zero, low), dim=-1)

    def fold_queries(self) -> None:
        """Moves what happens to the queries of a dot product into their projection."""
        with torch.no_grad():
            inputs = torch.cat((self.query.weight, self.query.bias[:, None]), dim=1).T  # (D + 1, D)
            folded = self.scores.fold(self._split(inputs[None]))  # (1, H, D + 1, d)
            joined = folded.transpose(1, 2).flatten(2)[0].T  # (D, D + 1)
            self.query.weight.copy_(joined[:, :-1])
            self.query.bias.copy_(joined[:, -1])
        self.scores = Scores("dot", "softmax", self.heads, self.query.out_features // self.heads)


class FusedBlock(Block):
    """A block in as few operators as ONNX Runtime has; of unrotated products only.

    Padded positions hold numbers that nobody reads: as keys they are masked, and no embedding is
    read from them.
    """

    def forward(
        self, x: Tensor, sequence: MaskedSequence, read: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As a block's; the weights are computed for themselves, if the graph asks for them."""
        normed = self.attention_norm(x)  # (B, 1 + L, D)
        if read is not None:
            newest = take(x, read).squeeze(1)  # (B, D)
            context, weights = self._attend_once(
                self.attention_norm(newest), normed, sequence.key_mask
            )
            return self._finish(newest, context).unsqueeze(1), weights
        _, weights = self.attention(normed, normed, sequence.attend_mask)
        # (B L, D), once for all that follows.
        flat, context = (
            y.reshape(-1, x.shape[-1]) for y in (x, self._attend(normed, sequence.key_mask))
        )
        return self._finish(flat, self.attention.output(context)).reshape(x.shape), weights

    def fused(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """The states alone."""
        return self.forward(x, sequence, None)[0]

    def _attend(self, x: Tensor, key_mask: Tensor) -> Tensor:
        """Context (B, L, D), not yet projected, of causal attention among the keys of (B, L)."""
        projections = (self.attention.query, self.attention.key, self.attention.value)
        weight = torch.cat([projection.weight for projection in projections]).T  # (D, 3 D)
        bias = torch.cat([projection.bias for projection in projections])  # (3 D,)
        context: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::Attention",
            (x, weight, bias, key_mask.int()),
            {
                "num_heads": self.attention.heads,
                "scale": 1.0,
                "unidirectional": 1,
                "mask_filter_value": MASKED,
            },
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )
        return context

    def _attend_once(self, newest: Tensor, keys: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:
        """`Attention.at_one` with two products of weights each made one beforehand.

        (B, D), (B, L, D), (B, L) to the projected context (B, D) and weights (B, H, 1, L).
        """
        attention, width = self.attention, keys.shape[-1]
        heads = (attention.heads, -1, width)
        query, key, value = (
            projection.weight.view(heads)  # (H, d, D)
            for projection in (attention.query, attention.key, attention.value)
        )
        lift = (key.mT @ query).flatten(0, 1)  # (H D, D), of a query to where keys are
        lift_bias = attention.query.bias.view(attention.heads, 1, -1) @ key  # (H, 1, D)
        lifted = nn.functional.linear(newest, lift, lift_bias.flatten())
        scores = lifted.reshape(-1, attention.heads, width) @ keys.mT  # (B, H, L)
        scores = torch.where(key_mask[:, None], scores, MASKED)
        weights = torch.softmax(scores, dim=-1)
        seen = (weights @ keys).flatten(1)  # (B, H D)
        output = attention.output.weight.view(width, attention.heads, -1)  # (D, H, d)
        land = (output.transpose(0, 1) @ value).transpose(0, 1).flatten(1)  # (D, H D)
        land_bias = attention.output(attention.value.bias)  # weights sum to 1
        return nn.functional.linear(seen, land, land_bias), weights.unsqueeze(2)

    def _finish(self, x: Tensor, context: Tensor) -> Tensor:
        x = x + context
        out: Tensor = x + self.feed_forward(self.feed_forward_norm(x))
        return out


class FusedEncoder(UserEncoder):
    """Whose blocks are all fused, so that nothing but keys needs a mask."""

    def embed(self, item_ids: Tensor, key_mask: Tensor) -> tuple[Tensor, MaskedSequence]:
        """Start token and clicks with their positions, (B, 1 + L, D)."""
        return self.embed_padding_too(item_ids, key_mask)


def served(encoder: UserEncoder) -> UserEncoder:
    """A rearranged copy in eval mode, for export alone: PyTorch has not got all its operators."""
    encoder = copy.deepcopy(encoder).eval()
    config = encoder.config
    products = config.similarity != "additive" and config.positions != "rotary"
    if products:
        encoder.__class__ = FusedEncoder
    for module in encoder.modules():
        if isinstance(module, nn.Linear):
            module.__class__ = FlatLinear
        if isinstance(module, Block):
            attention = module.attention
            attention.__class__ = BiasedAttention
            if products and isinstance(attention, BiasedAttention):
                attention.fold_queries()
                module.__class__ = FusedBlock
    return encoder
