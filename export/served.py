"""The encoder as it is served: the same function, rearranged for ONNX Runtime on a CPU.

What a product of queries and keys is scaled, weighted or mapped by goes into the projection of
the queries. Where all positions attend, ONNX Runtime's own operators do masks, softmax and context
at once, and the rotation. Where one position does, its projection and the keys' are made one
product beforehand, unless a rotation is between them, and so are the values' and the output's.
All are compared with the trained encoder before they are shipped.

Measured for d 64, 2 blocks, one thread (ONNX Runtime 1.31), in microseconds at (1, 3), (1, 50),
(1, 200) and (32, 50): with plain operators 75, 170, 601, 3370; with these 49, 126, 472, 2853.
With rotary positions and SwiGLU of half the width 93, 180, 562, 3396; with these 62, 131, 438,
2791.
"""

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.functional import linear

from export.int8 import Bounds, Int8Linear, round_blocks
from model.attention import Attention, Rotation, Scores
from model.encoder import Block, EncoderConfig, MaskedSequence, UserEncoder

MASKED = -1e30  # added to scores: exp underflows to 0 beside any key, and twice of it is finite
PIECES = 6  # of the queries of a long history


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
    """A block in as few operators as ONNX Runtime has.

    Padded positions hold numbers that nobody reads: as keys they are masked, and no embedding is
    read from them.
    """

    joint: nn.Linear | Int8Linear  # queries, keys and values
    turns: Rotation | None  # of every position that there can be
    pieces: int  # that the queries are computed in

    def forward(
        self, x: Tensor, sequence: MaskedSequence, read: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """As a block's; the weights are computed for themselves, if the graph asks for them."""
        normed = self._normed(x)  # (B, 1 + L, D)
        if read is not None:
            newest = _at(x, read)  # (B, D)
            context, weights = self._attend_once(self._normed(newest), normed, sequence)
            return self._finish(newest, context), weights
        _, weights = self.attention(
            normed, normed, sequence.attend_mask, sequence.rotation, sequence.rotation
        )
        # (B L, D), once for all that follows.
        flat, context = (y.reshape(-1, x.shape[-1]) for y in (x, self._attend(normed, sequence)))
        return _shaped(self._finish(flat, self.attention.output(context)), x), weights

    def fused(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """The states alone."""
        return self.forward(x, sequence, None)[0]

    def _attend(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """Context (B, L, D), not yet projected, of causal self-attention."""
        if self.pieces > 1:
            return self._attend_in_pieces(x, sequence)
        mask = sequence.key_mask.int()  # (B, L)
        if self.turns is not None:
            return self._fuse("MultiHeadAttention", *self._project(x, sequence), None, mask)
        if isinstance(self.joint, Int8Linear):
            layer = self.joint
            inputs = (layer.round(x), layer.weight, layer.bias)
            scales = (layer.input_scale, layer.weight_scale)
            return self._fuse(
                "QAttention", *inputs, *scales, mask, layer.input_zero, layer.weight_zero
            )
        return self._fuse("Attention", x, self.joint.weight.T, self.joint.bias, mask)

    def _project(self, x: Tensor, sequence: MaskedSequence) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (B, L, D)."""
        query, key, value = self.joint(x).chunk(3, dim=-1)
        if self.turns is not None:
            query, key = (_turn(y, sequence.positions, self.turns) for y in (query, key))
        return query, key, value

    def _attend_in_pieces(self, x: Tensor, sequence: MaskedSequence) -> Tensor:
        """The same, each piece of the queries beside no more keys than its last one can see.

        Of what a mask would hide, not even the scores are computed: 5 of 12 products. It takes more
        operators, so it pays with long histories alone.
        """
        heads, n = self.attention.heads, x.shape[1]
        query, key, value = (
            y.reshape(*y.shape[:2], heads, -1).transpose(1, 2) for y in self._project(x, sequence)
        )  # (B, H, L, d)
        # How far a key lies ahead of a query, times -MASKED, is what its score loses; padding lies
        # ahead of all. In floats this takes half of the time that comparing and selecting does.
        place = torch.arange(n, dtype=x.dtype) * -MASKED  # (L,)
        key_place = torch.where(sequence.key_mask, place, torch.finfo(x.dtype).max)[:, None, None]
        contexts = []
        for piece in range(self.pieces):
            start, end = n * piece // self.pieces, n * (piece + 1) // self.pieces
            ahead = torch.relu(key_place[..., :end] - place[start:end, None])  # (B, 1, l, k)
            scores = query[:, :, start:end] @ key[:, :, :end].mT - ahead  # (B, H, l, k)
            contexts.append(torch.softmax(scores, dim=-1) @ value[:, :, :end])
        return torch.cat(contexts, dim=2).transpose(1, 2).flatten(2)

    def _fuse(self, operator: str, x: Tensor, *inputs: Tensor | None) -> Tensor:
        context: Tensor = torch.onnx.ops.symbolic(
            f"com.microsoft::{operator}",
            (x, *inputs),
            {
                "num_heads": self.attention.heads,
                "scale": 1.0,
                "unidirectional": 1,
                "mask_filter_value": MASKED,
            },
            dtype=torch.float32,
            shape=x.shape,
            version=1,
        )
        return context

    def _attend_once(
        self, newest: Tensor, keys: Tensor, sequence: MaskedSequence
    ) -> tuple[Tensor, Tensor]:
        """`Attention.at_one` with products of weights made beforehand.

        (B, D), (B, L, D) to the projected context (B, D) and weights (B, H, 1, L).
        """
        attention, width = self.attention, keys.shape[-1]
        if self.turns is None:
            scores = self._lift(newest, keys)  # (B, H, L)
        else:
            scores = self._lift_turned(newest, keys, sequence.positions, self.turns)
        scores = torch.where(sequence.key_mask[:, None], scores, MASKED)
        weights = torch.softmax(scores, dim=-1)
        seen = (weights @ keys).flatten(1)  # (B, H D)
        value = attention.value.weight.view(attention.heads, -1, width)  # (H, d, D)
        output = attention.output.weight.view(width, attention.heads, -1)  # (D, H, d)
        land = (output.transpose(0, 1) @ value).transpose(0, 1).flatten(1)  # (D, H D)
        land_bias = attention.output(attention.value.bias)  # weights sum to 1
        return linear(seen, land, land_bias), weights.unsqueeze(2)

    def _lift(self, newest: Tensor, keys: Tensor) -> Tensor:
        """Scores of the newest position, taken to where keys are not yet projected."""
        attention, width = self.attention, keys.shape[-1]
        heads = (attention.heads, -1, width)
        query, key = (p.weight.view(heads) for p in (attention.query, attention.key))  # (H, d, D)
        weight = (key.mT @ query).flatten(0, 1)  # (H D, D)
        bias = attention.query.bias.view(attention.heads, 1, -1) @ key  # (H, 1, D)
        lifted = linear(newest, weight, bias.flatten())
        return lifted.reshape(-1, attention.heads, width) @ keys.mT

    def _lift_turned(
        self, newest: Tensor, keys: Tensor, positions: Tensor, turns: Rotation
    ) -> Tensor:
        """The same between rotations, which come after the projections."""
        attention = self.attention
        last = positions.amax(1, keepdim=True)  # (B, 1)
        query = _turn(attention.query(newest).unsqueeze(1), last, turns)  # (B, 1, D)
        key = _turn(attention.key(keys), positions, turns)  # (B, L, D)
        query, key = (
            y.reshape(*y.shape[:2], attention.heads, -1).transpose(1, 2) for y in (query, key)
        )
        return (query @ key.mT).squeeze(2)


def _shaped(flat: Tensor, x: Tensor) -> Tensor:
    """As it was before it was flattened: the exporter would compute each axis for itself."""
    ops = torch.onnx.ops
    shape = ops.symbolic("Shape", (x,), dtype=torch.int64, shape=(x.ndim,), version=19)
    shaped: Tensor = ops.symbolic(
        "Reshape", (flat, shape), dtype=x.dtype, shape=x.shape, version=19
    )
    return shaped


def _at(x: Tensor, positions: Tensor) -> Tensor:
    """One position a row: (B, L, D) at (B,) to (B, D)."""
    taken: Tensor = torch.onnx.ops.symbolic(
        "GatherND",
        (x, positions.unsqueeze(1)),
        {"batch_dims": 1},
        dtype=x.dtype,
        shape=(x.shape[0], x.shape[2]),
        version=13,
    )
    return taken


def _turn(x: Tensor, positions: Tensor, turns: Rotation) -> Tensor:
    """Rotates (B, L, D) by positions (B, L)."""
    turned: Tensor = torch.onnx.ops.symbolic(
        "com.microsoft::RotaryEmbedding",
        (x, positions.long(), turns.cos[0, 0], turns.sin[0, 0]),
        dtype=x.dtype,
        shape=x.shape,
        version=1,
    )
    return turned


class FusedEncoder(UserEncoder):
    """Whose blocks are all fused: nothing but keys needs a mask."""

    def embed(self, item_ids: Tensor, key_mask: Tensor) -> tuple[Tensor, MaskedSequence]:
        """Start token and clicks with their positions, (B, 1 + L, D)."""
        if self.position_embedding is None:
            return self.embed_padding_too(item_ids, key_mask)
        clicks = self.item_embedding(torch.where(key_mask, item_ids, 0))  # (B, L, D)
        if self.config.embedding_scale != 1:
            clicks = clicks * self.config.embedding_scale
        sequence = MaskedSequence(key_mask, self.config)
        # `served` has put the start token where its position is.
        return functional.pad(clicks, (0, 0, 1, 0)) + self.position_embedding(
            sequence.positions
        ), sequence


def served(encoder: UserEncoder, bounds: Mapping[str, Bounds] | None = None) -> UserEncoder:
    """A rearranged copy in eval mode, for export alone: PyTorch has not got all its operators.

    Args:
        encoder: the trained one.
        bounds: of what goes into each layer, for products in 8 bits.
    """
    encoder = copy.deepcopy(encoder).eval()
    fused = _fuses(encoder.config)
    if fused:
        encoder.__class__ = FusedEncoder
        if encoder.position_embedding is not None:
            with torch.no_grad():
                encoder.position_embedding.weight[0] += encoder.start_embedding
    for module in list(encoder.modules()):
        if isinstance(module, nn.Linear):
            module.__class__ = FlatLinear
        if isinstance(module, Block):
            attention = module.attention
            attention.__class__ = BiasedAttention
            if fused and isinstance(attention, BiasedAttention):
                attention.fold_queries()
                module.__class__ = FusedBlock
                module.joint = _joint(attention)
                cast("FusedBlock", module).turns = _turns(encoder.config)
    in_pieces(encoder, 1)
    if bounds is not None:
        # An embedding that is read from the newest position needs the last block there alone.
        read_once = encoder.config.pooling == "newest"
        round_blocks(encoder.blocks, bounds, len(encoder.blocks) - read_once)
    return encoder


def in_pieces(encoder: UserEncoder, pieces: int) -> None:
    """Sets in how many pieces the served encoder's fused blocks attend."""
    for module in encoder.modules():
        if isinstance(module, FusedBlock):
            module.pieces = pieces


def _joint(attention: Attention) -> FlatLinear:
    layers = (attention.query, attention.key, attention.value)
    joint = FlatLinear(layers[0].in_features, sum(layer.out_features for layer in layers))
    with torch.no_grad():
        joint.weight.copy_(torch.cat([layer.weight for layer in layers]))
        joint.bias.copy_(torch.cat([layer.bias for layer in layers]))
    return joint


def fuses_all_positions(config: EncoderConfig) -> bool:
    """Whether a fused block attends from every position, and not from the newest alone."""
    return _fuses(config) and (config.blocks > 1 or config.pooling != "newest")


def _fuses(config: EncoderConfig) -> bool:
    """Whether scores are products; of rotated queries and keys, only a scale can be folded."""
    if config.positions == "rotary":
        return config.similarity in {"dot", "scaled_dot"} and config.normalisation == "softmax"
    return config.similarity != "additive"


def _turns(config: EncoderConfig) -> Rotation | None:
    if config.positions != "rotary":
        return None
    return Rotation(torch.arange(config.max_length + 1)[None], config.width // config.heads)
