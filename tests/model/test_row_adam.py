"""Steps that touch single rows of a table, against the plain way that touches all of them."""

import copy
import types
from typing import Any

import pytest
import torch
from lightning import LightningModule

from model.training.averaging import MeanOfWeights, kept_share
from model.training.row_adam import RowAdamW, clip_norm

ROWS, WIDTH = 12, 4


class Small(LightningModule):
    """A table, and one matrix that reads it."""

    def __init__(self, *, sparse: bool = True) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(ROWS, WIDTH, sparse=sparse)
        self.matrix = torch.nn.Linear(WIDTH, 1)

    def backward_of(self, rows: list[int]) -> None:
        self.zero_grad()
        self.matrix(self.table(torch.tensor(rows))).square().sum().backward()


def optimizer_of(module: Small, rate: float = 0.1, beta1: float = 0.9) -> RowAdamW:
    groups = [{"params": list(module.parameters()), "weight_decay": 0.0}]
    return RowAdamW(groups, lr=rate, betas=(beta1, 0.98))


def test_a_step_changes_the_rows_of_its_gradient_and_no_others() -> None:
    module = Small()
    before = module.table.weight.detach().clone()
    optimizer = optimizer_of(module)
    module.backward_of([3, 7, 3])
    optimizer.step()
    changed = (module.table.weight != before).any(1)
    assert changed.nonzero().flatten().tolist() == [3, 7]
    assert optimizer.touched is not None
    assert optimizer.touched.rows.tolist() == [3, 7]
    torch.testing.assert_close(optimizer.touched.before, before[[3, 7]])


def test_the_first_step_of_a_row_is_as_long_as_the_learning_rate() -> None:
    module = Small()
    before = module.table.weight.detach().clone()
    module.backward_of([5])
    optimizer_of(module).step()
    moved = (module.table.weight - before)[5]
    assert moved.square().mean().sqrt().item() == pytest.approx(0.1, rel=1e-3)


def test_rows_are_where_adamw_has_them_after_they_have_caught_up() -> None:
    ours, plain = Small(), Small(sparse=False)
    by_row = optimizer_of(ours, rate=1e-3)
    adamw = torch.optim.AdamW(plain.parameters(), lr=1e-3, betas=(0.9, 0.98), weight_decay=0)
    start = ours.table.weight.detach().clone()
    rng = torch.Generator().manual_seed(0)
    for _ in range(400):
        rows = torch.randint(ROWS, (2,), generator=rng)
        by_row.catch_up(ours.table.weight, rows)
        ours.backward_of(rows.tolist())
        by_row.step()
        plain.backward_of(rows.tolist())
        adamw.step()
    by_row.catch_up(ours.table.weight)
    moved, expected = ours.table.weight - start, plain.table.weight - start
    assert (moved - expected).norm() < 0.02 * expected.norm()
    once = ours.table.weight.detach().clone()
    by_row.catch_up(ours.table.weight)
    torch.testing.assert_close(ours.table.weight, once, atol=0, rtol=0)


def test_other_parameters_are_updated_as_by_adamw() -> None:
    ours, plain = Small(), Small(sparse=False)
    plain.table.weight.requires_grad_(False)
    by_row = optimizer_of(ours)
    adamw = torch.optim.AdamW(plain.matrix.parameters(), lr=0.1, betas=(0.9, 0.98), weight_decay=0)
    ours.backward_of([1, 2])
    plain.backward_of([1, 2])
    by_row.step()
    adamw.step()
    torch.testing.assert_close(ours.matrix.weight, plain.matrix.weight)


def test_the_norm_of_a_sparse_gradient_is_limited_like_that_of_a_dense_one() -> None:
    ours, plain = Small(), Small(sparse=False)
    for module in (ours, plain):
        module.backward_of([1, 2, 2])
    clip_norm(ours.parameters(), 0.01)
    torch.nn.utils.clip_grad_norm_(plain.parameters(), 0.01)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad.to_dense(), other.grad)


def test_the_mean_of_resting_rows_is_that_of_averaging_every_row_at_every_step() -> None:
    module = Small()
    optimizer, mean = optimizer_of(module, beta1=0.0), MeanOfWeights(0.9)
    trainer: Any = types.SimpleNamespace(optimizers=[optimizer], global_step=0, current_epoch=0)
    mean.setup(trainer, module, "fit")
    plain = copy.deepcopy(module.state_dict())
    rng = torch.Generator().manual_seed(0)
    for step in range(60):
        rows = torch.randint(ROWS - 2, (3,), generator=rng)
        module.backward_of(rows.tolist())
        optimizer.step()
        trainer.global_step = step + 1
        mean.on_train_batch_end(trainer, module, None, None, step)
        kept = kept_share(0.9, step) if step else 0.0
        for name, weight in module.state_dict().items():
            plain[name] = torch.lerp(weight, plain[name], kept)
        if step % 20 == 19:  # a validation in between changes nothing
            mean.on_validation_epoch_start(trainer, module)
            mean.on_validation_epoch_end(trainer, module)
    mean.on_train_end(trainer, module)
    for name, weight in module.state_dict().items():
        torch.testing.assert_close(weight, plain[name])
