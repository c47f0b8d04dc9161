"""Operators that ONNX Runtime has and PyTorch lacks.

Each is exported as one node, and computes the same with plain PyTorch where nothing is exported.
"""

import torch
from torch import Tensor

from model.network.attention import Rotation

MASKED = -1e30  # added to scores: exp underflows to 0 beside any key, and twice of it is finite


def causal_self_attention(
    x: Tensor, joint: tuple[Tensor, Tensor], key_mask: Tensor, heads: int, added: Tensor | None
) -> Tensor:
    """Projects and attends at once (`com.microsoft.Attention`).

    From x (B, L, D), the weights (D, 3 D) and biases (3 D,) of queries, keys and values side by
    side, the key mask (B, L), and what is added to the scores, (B, H, L, L), to the context
    (B, L, D), not yet projected.
    """
    if torch.compiler.is_exporting():
        inputs = (x, *joint, key_mask.int(), *([] if added is None else [None, added]))
        return _attention_node("Attention", inputs, heads)
    query, key, value = (x @ joint[0] + joint[1]).chunk(3, dim=-1)
    return causal_attention((query, key, value), key_mask, heads, added)


def causal_attention(
    projected: tuple[Tensor, Tensor, Tensor], key_mask: Tensor, heads: int, added: Tensor | None
) -> Tensor:
    """The same for scaled queries, keys and values (`com.microsoft.MultiHeadAttention`)."""
    if torch.compiler.is_exporting():
        inputs = (*projected, None, key_mask.int(), *([] if added is None else [added]))
        return _attention_node("MultiHeadAttention", inputs, heads)
    query, key, value = (split(one, heads) for one in projected)
    weights = causal_weights(query, key, key_mask, added)
    return (weights @ value).transpose(1, 2).flatten(2)


def causal_weights(query: Tensor, key: Tensor, key_mask: Tensor, added: Tensor | None) -> Tensor:
    """The attention weights, which the fused operators keep to themselves.

    From scaled queries and keys (B, H, L, d), the key mask (B, L) and what is added to the scores
    to (B, H, L, L). Every row has a key, because position 0 is never masked: no second mask is
    needed.
    """
    index = torch.arange(query.shape[2])
    mask = (index <= index[:, None]) & key_mask[:, None, None]  # (B, 1, L, L)
    nothing = torch.zeros(()) if added is None else added
    bias = torch.where(mask, nothing, torch.full((), MASKED))
    return torch.softmax(query @ key.mT + bias, dim=-1)


def rotate(x: Tensor, positions: Tensor, rotation: Rotation) -> Tensor:
    """Turns queries or keys (B, L, D) by positions (B, L) (`com.microsoft.RotaryEmbedding`).

    `rotation` holds all positions that there can be.
    """
    cos, sin = rotation.cos[0, 0], rotation.sin[0, 0]  # (1 + max_length, d / 2)
    if torch.compiler.is_exporting():
        turned: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::RotaryEmbedding",
            (x, positions.long(), cos, sin),
            dtype=x.dtype,
            shape=x.shape,
            version=1,
        )
        return turned
    cos, sin = cos[positions][:, :, None], sin[positions][:, :, None]  # (B, L, 1, d / 2)
    heads = x.reshape(*x.shape[:2], -1, 2 * cos.shape[-1])  # (B, L, H, d)
    first, second = heads.chunk(2, dim=-1)  # (B, L, H, d / 2)
    return torch.cat((first * cos - second * sin, first * sin + second * cos), dim=-1).flatten(2)


def turn(x: Tensor, rotation: Rotation) -> Tensor:
    """The same by a rotation (B, 1, L, d / 2) of these very queries or keys."""
    batch, _, length, half = rotation.cos.shape
    caches = (one.reshape(1, 1, -1, half) for one in (rotation.cos, rotation.sin))
    places = torch.arange(batch * length).reshape(batch, length)
    return rotate(x, places, Rotation(*caches))


def take(x: Tensor, positions: Tensor) -> Tensor:
    """One position a row (`GatherND`): (B, L, D) at (B,) to (B, D)."""
    if not torch.compiler.is_exporting():
        return x[torch.arange(len(positions)), positions]
    taken: Tensor = torch.onnx.ops.symbolic(
        "GatherND",
        (x, positions.unsqueeze(1)),
        {"batch_dims": 1},
        dtype=x.dtype,
        shape=(x.shape[0], x.shape[2]),
        version=13,
    )
    return taken


def reshape_like(flat: Tensor, x: Tensor) -> Tensor:
    """Reshapes to the shape of `x`; the exporter alone would compute each axis for itself."""
    if not torch.compiler.is_exporting():
        return flat.reshape(x.shape)
    ops = torch.onnx.ops
    shape = ops.symbolic("Shape", (x,), dtype=torch.int64, shape=(x.ndim,), version=19)
    shaped: Tensor = ops.symbolic(
        "Reshape", (flat, shape), dtype=x.dtype, shape=x.shape, version=19
    )
    return shaped


def split(x: Tensor, heads: int) -> Tensor:
    """(B, L, D) to (B, H, L, d)."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(1, 2)


def _attention_node(operator: str, inputs: tuple[Tensor | None, ...], heads: int) -> Tensor:
    x = inputs[0]
    assert x is not None  # noqa: S101  # the first input is the queries
    context: Tensor = torch.onnx.ops.symbolic(
        f"com.microsoft::{operator}",
        inputs,
        {"num_heads": heads, "scale": 1.0, "unidirectional": 1, "mask_filter_value": MASKED},
        dtype=torch.float32,
        shape=x.shape,
        version=1,
    )
    return context
