"""Cross-entropy over the whole catalogue without storing its logits.

(targets, n_items) logits are by far the largest tensor of training, and moving them through
memory takes longer than computing them. Here the forward pass scores a slice of rows, normalises
it and turns it into gradients while it is in the cache. It stores only tensors as large as the
inputs (the idea of Cut Your Losses, Wijmans 2024, and of Liger Kernel's fused linear
cross-entropy).
"""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from model.network.item_table import ItemTable

SLICE_ROWS = 512  # with 3,416 items in bf16: 3.5 MB of logits, which fit in the cache


def next_click_loss(states: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Mean of -log softmax(states @ table.T)[targets], in nats.

    Under autocast the products have its dtype, as in a linear layer.

    Args:
        states: (N, D).
        table: item embeddings (n_items, D).
        targets: (N,) rows of the table.
    """
    device = states.device.type
    autocast = torch.is_autocast_enabled(device)
    dtype = torch.get_autocast_dtype(device) if autocast else states.dtype
    with torch.autocast(device, enabled=False):
        loss: Tensor = _NextClickLoss.apply(states, table, targets, dtype)  # type: ignore[no-untyped-call]  # torch has no types here
    return loss


def sampled_next_click_loss(
    states: Tensor,
    items: nn.Embedding | ItemTable,
    targets: Tensor,
    n_negatives: int,
    *,
    shared: bool = True,
) -> Tensor:
    """An estimate of `next_click_loss` from uniform negatives, for large catalogues.

    The negatives, drawn with replacement, represent all other items: each counts
    n_items / n_negatives times. If they are shared by all positions, one product scores them.

    Args:
        states: (N, D).
        items: embeds n_items items and, in its last row, unknown ones, which are never drawn. If it
            is `sparse`, so is its gradient.
        targets: (N,) rows of the embedding.
        n_negatives: in all, or of each position.
        shared: whether all positions have the same negatives.
    """
    n_items = items.num_embeddings - 1
    drawn = (n_negatives,) if shared else (len(targets), n_negatives)
    negatives = torch.randint(n_items, drawn, device=targets.device)
    rows = items(negatives)
    own = (states * items(targets)).sum(-1, keepdim=True)  # (N, 1)
    others = states @ rows.mT if shared else (rows @ states.unsqueeze(-1)).squeeze(-1)
    others = others + math.log(n_items / n_negatives)  # (N, negatives)
    others = others.masked_fill(negatives == targets[:, None], torch.finfo(others.dtype).min)
    scores = torch.cat((own, others.to(own.dtype)), dim=1)
    return F.cross_entropy(scores, torch.zeros_like(targets))


class _NextClickLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, states: Tensor, table: Tensor, targets: Tensor, dtype: torch.dtype
    ) -> Tensor:
        rows = table.to(dtype)
        states_gradient = torch.empty_like(states)
        table_gradient = torch.zeros_like(table)
        total = torch.zeros((), device=states.device)
        for start in range(0, len(states), SLICE_ROWS):
            chosen = slice(start, start + SLICE_ROWS)
            state = states[chosen].to(dtype)  # (S, D)
            target = targets[chosen, None]  # (S, 1)
            probability = torch.softmax(state @ rows.mT, dim=-1)  # (S, n_items)
            own = probability.gather(1, target)
            total -= own.float().clamp_min(torch.finfo(torch.float32).tiny).log().sum()
            # d loss / d logits = probability - (1 at the target)
            gradient = probability.scatter_(1, target, own - 1)
            states_gradient[chosen] = gradient @ rows
            table_gradient += gradient.mT @ state
        ctx.save_for_backward(states_gradient, table_gradient)
        ctx.n = max(len(states), 1)
        mean: Tensor = total / ctx.n
        return mean

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, output_gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        states_gradient, table_gradient = ctx.saved_tensors
        scale = output_gradient / ctx.n
        return states_gradient * scale, table_gradient * scale, None, None
