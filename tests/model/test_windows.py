"""Training windows and their batches: no click is lost, none is a target twice."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.network.config import EncoderConfig
from model.training.objective import objective
from model.training.windows import LengthGroupedBatches, Windows
from tests.attention_kinds import ALL, Kind, each
from tests.conftest import random_encoder
from tests.small import of, walks


@given(
    rows=st.lists(st.lists(st.integers(0, 10), max_size=20), min_size=1, max_size=8),
    max_length=st.integers(1, 6),
)
def test_every_known_click_is_a_target_exactly_once(rows: list[list[int]], max_length: int) -> None:
    windows = Windows(of(*rows, n_items=10), max_length)
    targets: list[int] = []
    for window in range(len(windows)):
        batch = windows[np.array([window])]
        assert batch.item_ids.shape[1] <= max_length
        targets += batch.targets[batch.target_mask].tolist()
    assert sorted(targets) == sorted(item for row in rows for item in row if item != 10)


def test_only_the_oldest_window_has_a_target_for_the_start_token() -> None:
    windows = Windows(of(list(range(9)), n_items=10), max_length=4)
    batch = windows[np.arange(len(windows))]
    first_targets = {
        tuple(row.tolist()): bool(mask[0])
        for row, mask in zip(batch.targets, batch.target_mask, strict=True)
    }
    assert first_targets == {(4, 5, 6, 7, 8): False, (0, 1, 2, 3, 4): True}


def test_the_newest_window_alone_ends_with_the_newest_click() -> None:
    histories = of(list(range(9)), [], [3, 1], n_items=10)
    windows = Windows(histories, max_length=4, newest_only=True)
    batch = windows[np.arange(len(windows))]
    targets = [
        row[mask].tolist() for row, mask in zip(batch.targets, batch.target_mask, strict=True)
    ]
    assert targets == [[5, 6, 7, 8], [3, 1]]


def test_batches_hold_every_window_once_and_differ_by_epoch() -> None:
    windows = Windows(walks(), 6)
    batches = LengthGroupedBatches(windows, max_batch_tokens=64, max_batch=16, seed=1)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append([batch.tolist() for batch in batches])
        assert sorted(row for batch in epochs[-1] for row in batch) == list(range(len(windows)))
        assert len(epochs[-1]) == len(batches)
    assert epochs[0] == epochs[2] != epochs[1]


@pytest.mark.parametrize("processes", [2, 3])  # of 20 batches
def test_processes_that_train_together_share_the_batches(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = LengthGroupedBatches(Windows(walks(), 6), 64, 16, seed=1)
    whole = [batch.tolist() for batch in batches]
    shares = []
    for rank in range(processes):
        monkeypatch.setattr("model.training.windows._rank_of", lambda rank=rank: (rank, processes))
        shares.append([batch.tolist() for batch in batches])
        assert len(shares[-1]) == len(batches)
    used = [batch for step in zip(*shares, strict=True) for batch in step]
    assert used[: len(whole)] == whole
    assert used[len(whole) :] == whole[: len(used) - len(whole)]


def test_padding_and_other_rows_do_not_change_the_loss() -> None:
    """The loss of a batch is the mean over its targets, however they are batched."""
    encoder = random_encoder(EncoderConfig(width=16, max_length=6, dropout=0), 10)
    windows = Windows(of([1, 2, 3], [4, 5, 6, 7, 8], [9], n_items=10), 6)
    together = windows[np.arange(3)]
    alone = [windows[np.array([w])] for w in range(3)]
    losses = torch.stack([objective(encoder, batch, 10) for batch in alone])
    sizes = torch.tensor([batch.target_mask.sum() for batch in alone])
    expected = (losses * sizes).sum() / sizes.sum()
    torch.testing.assert_close(objective(encoder, together, 10), expected)


@each([kind for kind in ALL if kind.attention == "source_target" and kind.heads == 1])
def test_the_candidate_attention_of_every_kind_is_trained(kind: Kind) -> None:
    encoder = random_encoder(kind.config(dropout=0), 10)
    assert encoder.candidates is not None
    windows = Windows(of([1, 2, 3], [4, 5, 6, 7, 8], [9], n_items=10), 6)
    torch.manual_seed(0)
    loss = objective(encoder, windows[np.arange(3)], 4)  # fewer than the catalogue: it samples
    gradients = torch.autograd.grad(loss, list(encoder.candidates.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:-1])
