"""The training objective: cross-entropy of the next click at every position with a target.

Padding has no targets, so it costs no logits.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from model.network.sequence import take
from model.network.time import Clock
from model.training.next_click_loss import next_click_loss, sampled_next_click_loss
from model.training.windows import WindowBatch


def objective(
    encoder: UserEncoder,
    batch: WindowBatch,
    n_candidates: int,
    n_negatives: int = 0,
    *,
    shared: bool = True,
    penalty: float = 0.0,
) -> Tensor:
    """The mean loss of a batch in nats.

    It compares each target with `n_negatives` items, which all positions may share, or with the
    whole catalogue if that is 0. `penalty` keeps the learned parts of the targets' vectors small. A
    source-target encoder has a second term: at one random position of every window it tells the
    next click from other candidates, `n_candidates` in all.
    """
    clock = None
    if batch.times is not None and batch.gaps is not None:
        clock = Clock.at_targets(batch.times, batch.gaps, batch.key_mask)
    states, sequence = encoder.states(batch.item_ids, batch.key_mask, clock, batch.columns)
    pooled = encoder.pool.running(states, sequence.key_mask)  # (B, 1 + L, D)
    predictions, targets = pooled[batch.target_mask], batch.targets[batch.target_mask]  # (T, D)
    items = encoder.item_embedding
    if n_negatives:
        loss = sampled_next_click_loss(predictions, items, targets, n_negatives, shared=shared)
    else:
        loss = next_click_loss(predictions, items.weight[: encoder.n_items], targets)
    if isinstance(items, ItemTable) and penalty:
        loss = loss + penalty * items.learned_size(targets)
    if encoder.candidates is None:
        return loss
    return loss + _candidate_loss(encoder, batch, states, pooled, n_candidates)


def _candidate_loss(
    encoder: UserEncoder, batch: WindowBatch, states: Tensor, pooled: Tensor, n_candidates: int
) -> Tensor:
    rows = batch.target_mask.any(1)  # a window of unknown items has no target
    states, pooled = states[rows], pooled[rows]
    chosen = torch.multinomial(batch.target_mask[rows].float(), 1).squeeze(1)  # (B,)
    target = batch.targets[rows].gather(1, chosen[:, None])  # (B, 1)
    candidates, answer = _candidates(encoder.n_items, target, n_candidates)
    # Click l is at position 1 + l; clicks after the chosen position are masked.
    index = torch.arange(1, states.shape[1], device=states.device)
    mask = (index <= chosen[:, None]) & batch.key_mask[rows]  # (B, L)
    assert encoder.candidates is not None  # noqa: S101  # the caller checks it
    scores, _ = encoder.candidates(
        take(pooled, chosen).unsqueeze(1),  # (B, 1, D)
        states[:, 1:],
        mask[:, None, None, :],
        encoder.item_embedding(candidates),
    )
    return F.cross_entropy(scores, answer)


def _candidates(n_items: int, target: Tensor, n_candidates: int) -> tuple[Tensor, Tensor]:
    """Candidates (B, N), and the index of the target among them, (B,).

    A small catalogue is compared whole. Otherwise the target comes first, followed by uniform
    negatives that the batch shares.
    """
    if n_items <= n_candidates:
        everything = torch.arange(n_items, device=target.device)
        return everything.expand(len(target), -1), target.squeeze(1)
    negatives = torch.randint(n_items - 1, (n_candidates - 1,), device=target.device)
    others = negatives.expand(len(target), -1)
    others = others + (others >= target)  # skip the target itself
    return torch.cat((target, others), dim=1), torch.zeros_like(target.squeeze(1))
