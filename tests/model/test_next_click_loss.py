"""The sliced cross-entropy against the plain one, and the dropout with cheap random numbers."""

import pytest
import torch
from torch.nn import functional as F

from model.network.dropout import Dropout
from model.training.next_click_loss import SLICE_ROWS, next_click_loss, sampled_next_click_loss


def problem(n: int, n_items: int = 50) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(n, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    table = torch.randn(n_items, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return states, table, torch.randint(n_items, (n,), generator=generator)


def embedding(table: torch.Tensor) -> torch.nn.Embedding:
    """The items of the table and a row of unknown ones."""
    rows = torch.cat((table.detach(), torch.full_like(table[:1].detach(), 99)))
    items = torch.nn.Embedding(*rows.shape)
    items.weight = torch.nn.Parameter(rows)
    return items


@pytest.mark.parametrize("n", [1, SLICE_ROWS, SLICE_ROWS + 1, 3 * SLICE_ROWS - 1])
def test_loss_and_gradients_are_those_of_cross_entropy(n: int) -> None:
    states, table, targets = problem(n)
    expected = F.cross_entropy(states @ table.mT, targets)
    loss = next_click_loss(states, table, targets)
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)
    ours = torch.autograd.grad(3 * loss, (states, table))
    for one, other in zip(ours, torch.autograd.grad(3 * expected, (states, table)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-9, rtol=1e-6)


def test_no_targets_cost_nothing() -> None:
    states, table, targets = problem(0)
    loss = next_click_loss(states, table, targets)
    gradients = torch.autograd.grad(loss, (states, table))
    assert loss.item() == 0
    assert all(not gradient.any() for gradient in gradients)


def test_autocast_makes_the_products_in_bf16_and_keeps_float_gradients() -> None:
    states, table, targets = (x.detach() for x in problem(100))
    states, table = states.float().requires_grad_(), table.float().requires_grad_()
    exact = next_click_loss(states, table, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = next_click_loss(states, table, targets)
    assert rounded.item() != exact.item()
    torch.testing.assert_close(rounded, exact, atol=0, rtol=1e-2)
    gradient = torch.autograd.grad(rounded, table)[0]
    assert gradient.dtype == torch.float32
    assert (
        torch.cosine_similarity(
            gradient.flatten(), torch.autograd.grad(exact, table)[0].flatten(), dim=0
        )
        > 0.999
    )


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_negatives_estimate_the_whole_loss(shared: bool) -> None:
    torch.manual_seed(0)
    states, table, targets = problem(200, n_items=500)
    states, items = states / 3, embedding(table)  # as flat as a catalogue's scores are
    whole = next_click_loss(states, table, targets)
    estimates = [
        sampled_next_click_loss(states, items, targets, 100, shared=shared) for _ in range(50)
    ]
    assert torch.stack(estimates).mean().item() == pytest.approx(whole.item(), rel=0.01)


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "own"])
def test_a_target_among_the_negatives_is_not_its_own_rival(shared: bool) -> None:
    states, table, targets = problem(5, n_items=1)
    loss = sampled_next_click_loss(states, embedding(table), targets, 10, shared=shared)
    assert loss.item() == 0


@pytest.mark.parametrize("shape", [(3, 5), (1000, 101)], ids=["not eight", "many"])
def test_dropout_keeps_the_mean_and_drops_the_share(shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    x = torch.ones(shape)
    dropped = Dropout(0.25)(x)
    assert set(dropped.unique().tolist()) <= {0.0, torch.tensor(4 / 3).item()}
    if x.numel() > 1000:
        assert (dropped == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
        assert dropped.mean().item() == pytest.approx(1, abs=0.01)


def test_dropout_is_silent_outside_training_and_differs_by_draw() -> None:
    x = torch.ones(64, 64)
    dropout = Dropout(0.5)
    torch.manual_seed(0)
    first, second = dropout(x), dropout(x)
    assert not torch.equal(first, second)
    torch.manual_seed(0)
    assert torch.equal(dropout(x), first)
    assert dropout.eval()(x) is x


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_an_impossible_share_is_refused(share: float) -> None:
    with pytest.raises(ValueError, match="at least 0 and below 1"):
        Dropout(share)
