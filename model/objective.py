"""What training minimises: cross-entropy of the next click, at every real position.

Loss is computed where there is a target and nowhere else, so padding costs no logits, and over
the whole catalogue at once: see `next_click_loss`.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.encoder import UserEncoder, take
from model.next_click_loss import next_click_loss, sampled_next_click_loss
from model.windows import WindowBatch


def objective(
    encoder: UserEncoder,
    batch: WindowBatch,
    n_candidates: int,
    n_negatives: int = 0,
    *,
    shared: bool = True,
) -> Tensor:
    """Mean loss of a batch, in nats: over the whole catalogue, or `n_negatives` of it if not 0.

    A source-target encoder also learns to tell the next click from other candidates, at one
    random position of every window.
    """
    states, sequence = encoder.states(batch.item_ids, batch.key_mask)
    pooled = encoder.pool.running(states, sequence.key_mask)  # (B, 1 + L, D)
    items = encoder.item_embedding.weight[: encoder.n_items]
    asked, targets = pooled[batch.target_mask], batch.targets[batch.target_mask]
    if n_negatives:
        loss = sampled_next_click_loss(asked, items, targets, n_negatives, shared=shared)
    else:
        loss = next_click_loss(asked, items, targets)
    if encoder.candidates is None:
        return loss
    return loss + _candidate_loss(encoder, batch, states, pooled, n_candidates)


def _candidate_loss(
    encoder: UserEncoder, batch: WindowBatch, states: Tensor, pooled: Tensor, n_candidates: int
) -> Tensor:
    rows = batch.target_mask.any(1)  # a window of unknown items asks for nothing
    states, pooled = states[rows], pooled[rows]
    chosen = torch.multinomial(batch.target_mask[rows].float(), 1).squeeze(1)  # (B,)
    target = batch.targets[rows].gather(1, chosen[:, None])  # (B, 1)
    candidates, answer = _candidates(encoder.n_items, target, n_candidates)
    # Click l lies at position 1 + l: seen if that is at or before the chosen position.
    index = torch.arange(1, states.shape[1], device=states.device)
    mask = (index <= chosen[:, None]) & batch.key_mask[rows]  # (B, L)
    assert encoder.candidates is not None  # noqa: S101  # told by the caller
    scores, _ = encoder.candidates(
        take(pooled, chosen).unsqueeze(1),  # (B, 1, D)
        states[:, 1:],
        mask[:, None, None, :],
        encoder.item_embedding(candidates),
    )
    return F.cross_entropy(scores, answer)


def _candidates(n_items: int, target: Tensor, n_candidates: int) -> tuple[Tensor, Tensor]:
    """Candidates (B, N) and where among them the target is (B,).

    A catalogue that fits is compared whole; else the target stands first, before uniform
    negatives that the batch shares.
    """
    if n_items <= n_candidates:
        everything = torch.arange(n_items, device=target.device)
        return everything.expand(len(target), -1), target.squeeze(1)
    negatives = torch.randint(n_items - 1, (n_candidates - 1,), device=target.device)
    others = negatives.expand(len(target), -1)
    others = others + (others >= target)  # step over the target itself
    return torch.cat((target, others), dim=1), torch.zeros_like(target.squeeze(1))
