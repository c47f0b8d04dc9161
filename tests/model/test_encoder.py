"""The encoder: no padding moves an embedding, no later click moves an earlier state."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.clicks.histories import pad
from model.network.attention import PaddingSide
from model.network.config import EncoderConfig, Norm, Pooling, Positions
from model.network.encoder import UserEncoder
from model.training.objective import objective
from model.training.windows import WindowBatch
from tests.attention_kinds import ALL, Kind, each
from tests.conftest import random_encoder

N_ITEMS = 9
UNKNOWN = N_ITEMS
VARIANTS: list[tuple[Pooling, Positions, bool, Norm]] = [
    ("newest", "learned", False, "pre"),
    ("newest", "rotary", True, "pre"),
    ("newest", "none", False, "pre"),
    ("mean", "learned", False, "pre"),
    ("mean", "rotary", False, "pre"),
    ("additive", "learned", False, "pre"),
    ("additive", "rotary", True, "pre"),
    ("newest", "rotary", True, "post"),
    ("mean", "learned", False, "post"),
]
CONFIGS = [
    EncoderConfig(
        width=16,
        max_length=12,
        pooling=pooling,
        positions=positions,
        gated=gated,
        embedding_scale=4.0 if gated else 1.0,
        norm=norm,
    )
    for pooling, positions, gated, norm in VARIANTS
]
ENCODERS = [random_encoder(config, N_ITEMS) for config in CONFIGS]
each_encoder = pytest.mark.parametrize(
    "encoder", ENCODERS, ids=[f"{c.pooling} {c.positions} {c.norm}" for c in CONFIGS]
)
histories = st.lists(st.integers(0, UNKNOWN), max_size=12)


def batch_of(*rows: list[int], side: PaddingSide = "right") -> tuple[Tensor, Tensor]:
    """Padded item ids and key mask of histories."""
    item_ids, key_mask = pad([np.array(row, np.int32) for row in rows], 12, side)
    return torch.from_numpy(item_ids), torch.from_numpy(key_mask)


def wider(
    item_ids: Tensor, key_mask: Tensor, amount: int, side: PaddingSide
) -> tuple[Tensor, Tensor]:
    """The same batch with more padding, and nonsense ids under it."""
    padding = (amount, 0) if side == "left" else (0, amount)
    item_ids = torch.nn.functional.pad(item_ids, padding)
    key_mask = torch.nn.functional.pad(key_mask, padding, value=False)
    nonsense = torch.randint(-(2**40), 2**40, item_ids.shape)
    return torch.where(key_mask, item_ids, nonsense), key_mask


def running(encoder: UserEncoder, item_ids: Tensor, key_mask: Tensor) -> Tensor:
    """The embedding after every position, (B, 1 + L, D), from which training learns."""
    states, sequence = encoder.states(item_ids, key_mask)
    return encoder.pool.running(states, sequence.key_mask)


def close(actual: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)


@each_encoder
@settings(max_examples=20, deadline=None)
@given(
    history=histories,
    mates=st.lists(histories, max_size=3),
    amount=st.integers(0, 5),
    side=st.sampled_from(["left", "right"]),
)
def test_batch_mates_and_padding_never_move_an_embedding(
    encoder: UserEncoder, history: list[int], mates: list[list[int]], amount: int, side: PaddingSide
) -> None:
    with torch.no_grad():
        alone, _ = encoder.encode(*batch_of(history))
        together, _ = encoder.encode(*wider(*batch_of(history, *mates, side=side), amount, side))
    close(together[0], alone[0])


@each(ALL)
def test_no_kind_of_attention_lets_padding_leak(kind: Kind) -> None:
    encoder = random_encoder(kind.config(), N_ITEMS)
    rows: list[list[int]] = [[3, 1, 4, 1, 5], [], [2, 6]]
    with torch.no_grad():
        for side in ("left", "right"):
            padded, weights = encoder.encode(*wider(*batch_of(*rows, side=side), 4, side))
            for row, embedding in zip(rows, padded, strict=True):
                close(embedding, encoder.encode(*batch_of(row))[0][0])
            mask = torch.nn.functional.pad(
                wider(*batch_of(*rows, side=side), 4, side)[1], (1, 0), value=True
            )
            assert (weights[~mask[:, None].expand_as(weights)] == 0).all()
            close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@each([kind for kind in ALL if kind.attention == "source_target"])
def test_no_kind_of_candidate_score_lets_padding_leak(kind: Kind) -> None:
    encoder = random_encoder(kind.config(), N_ITEMS)
    rows: list[list[int]] = [[3, 1, 4, 1, 5], [], [2, 6]]
    candidates = torch.tensor([[0, 1, 2]])
    with torch.no_grad():
        for side in ("left", "right"):
            ids, mask = wider(*batch_of(*rows, side=side), 4, side)
            scores, weights = encoder.score(ids, mask, candidates.expand(3, -1))
            for row, score in zip(rows, scores, strict=True):
                close(score, encoder.score(*batch_of(row), candidates)[0][0])
            masked = ~mask[:, None, None].expand_as(weights)
            assert (weights[masked] == 0).all()
            close(weights.sum(-1)[[0, 2]], torch.ones_like(weights.sum(-1)[[0, 2]]))


@each_encoder
def test_training_reads_the_same_embedding_as_serving(encoder: UserEncoder) -> None:
    item_ids, key_mask = batch_of([3, 1, 4], [], [5, 2, 6, 5, 3])
    with torch.no_grad():
        every = running(encoder, item_ids, key_mask)
        served, _ = encoder.encode(item_ids, key_mask)
        full, _ = encoder.encode_full(item_ids, key_mask)
    close(every[torch.arange(3), key_mask.sum(1)], served)
    close(full, served)


@each_encoder
def test_a_later_click_never_changes_an_earlier_position(encoder: UserEncoder) -> None:
    with torch.no_grad():
        before = running(encoder, *batch_of([3, 1, 4, 1, 5]))
        after = running(encoder, *batch_of([3, 1, 4, 8, 0]))
    close(after[:, :4], before[:, :4])
    assert not torch.allclose(after[:, 4:], before[:, 4:], atol=1e-3)


@each_encoder
def test_every_position_of_a_history_is_what_serving_gave_at_that_moment(
    encoder: UserEncoder,
) -> None:
    """Positions counted back from the newest click would give them only to the last one."""
    history = [3, 1, 4, 1, 5]
    with torch.no_grad():
        every = running(encoder, *batch_of(history))[0]
        moments = [encoder.encode(*batch_of(history[:clicks]))[0][0] for clicks in range(6)]
    close(every, torch.stack(moments))


@each_encoder
def test_an_empty_history_has_a_finite_embedding_of_its_own(encoder: UserEncoder) -> None:
    with torch.no_grad():
        embedding, weights = encoder.encode(*batch_of([]))
    assert embedding.isfinite().all()
    assert weights[..., 0].eq(1).all()  # the start token is all there is to look at


@each_encoder
def test_unknown_items_are_seen_and_are_not_padding(encoder: UserEncoder) -> None:
    with torch.no_grad():
        embeddings, _ = encoder.encode(*batch_of([3, UNKNOWN, 4], [3, 4, 0], [3, 0, 4]))
        without, _ = encoder.encode(*batch_of([3, 4]))
    assert not torch.allclose(embeddings[0], without[0], atol=1e-3)
    assert not torch.allclose(embeddings[0], embeddings[2], atol=1e-3)


@pytest.mark.parametrize("positions", ["learned", "rotary"])
def test_order_matters_with_positions(positions: Positions) -> None:
    encoder = random_encoder(EncoderConfig(width=16, max_length=12, positions=positions), N_ITEMS)
    with torch.no_grad():
        embeddings, _ = encoder.encode(*batch_of([1, 2, 3], [2, 1, 3]))
    assert not torch.allclose(embeddings[0], embeddings[1], atol=1e-3)


def test_the_query_mask_stands_after_every_block_and_the_final_norm() -> None:
    """LayerNorm turns a zero row into its bias, so a mask before it would not do."""
    encoder = random_encoder(EncoderConfig(width=16, max_length=12), N_ITEMS)
    item_ids, key_mask = batch_of([3, 1, 4], [5])
    with torch.no_grad():
        states, sequence = encoder.states(item_ids, key_mask)
        x, _ = encoder.embed(item_ids, key_mask)
        for block in encoder.blocks:
            x, _ = block(x, sequence, None)
            assert (x[1, 2:] == 0).all()
    assert encoder.final_norm.bias.abs().min() > 0
    assert (states[1, 2:] == 0).all()


def test_the_query_mask_is_the_key_mask_and_never_told_from_activations() -> None:
    """A real click whose embedding is all zeros is still a click."""
    encoder = random_encoder(EncoderConfig(width=16, max_length=12, positions="none"), N_ITEMS)
    with torch.no_grad():
        encoder.item_embedding.weight[3] = 0
        _, weights = encoder.encode(*batch_of([3, 3]))
    assert (weights > 0).all()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "training"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@each([kind for kind in ALL if kind.heads == 2])
def test_empty_histories_train_and_serve_finitely_in_every_precision(
    kind: Kind, dtype: torch.dtype, training: bool
) -> None:
    encoder = random_encoder(kind.config(), N_ITEMS).to(dtype).train(training)
    item_ids, key_mask = batch_of([], [3, 1, 4])
    targets = torch.tensor([[5, 0, 0, 0], [3, 1, 4, 2]])
    target_mask = torch.tensor([[True, False, False, False], [True] * 4])
    loss = objective(encoder, WindowBatch(item_ids, key_mask, targets, target_mask), 4)
    gradients = torch.autograd.grad(loss, list(encoder.parameters()), materialize_grads=True)
    assert loss.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"similarity": "cosine"}, "similarity is 'cosine', not one of"),
        ({"width": 10, "heads": 4}, "width 10 does not divide into 4 heads"),
        ({"blocks": 0}, "blocks is 0, at least 1"),
        ({"heads": -2}, "heads is -2, at least 1"),
        ({"dropout": 1.5}, "dropout is 1.5, at least 0 and below 1"),
        ({"positions": "rotary", "similarity": "additive"}, "rotary positions need a product"),
        ({"positions": "rotary", "width": 6, "heads": 2}, "head width that 2 divides, not 3"),
    ],
    ids=[
        "unknown choice",
        "heads do not divide",
        "no blocks",
        "negative heads",
        "dropout above 1",
        "rotary additive",
        "odd rotary",
    ],
)
def test_an_impossible_architecture_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EncoderConfig(**changes)  # type: ignore[arg-type]  # that is the point
