"""AdamW that, in tables, touches only the rows that are read."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

ROWS_AT_ONCE = 65_536  # rows of a whole table at once, to keep temporary tensors small


class Touched(NamedTuple):
    """Rows of a table that a step has changed."""

    table: Tensor
    rows: Tensor  # (R,)
    before: Tensor  # (R, D) their values before the step


class RowAdamW(torch.optim.AdamW):
    """AdamW; for tables with sparse gradients, the same result computed by row.

    AdamW moves a row for some steps after its last gradient, because the first moment fades by
    beta1 a step, and the root of the second by sqrt(beta2). The lengths of those steps are a
    geometric series: `catch_up` adds up what a row has missed, before it is read again. The
    corrections of the moments' bias are taken from the end of the rest, which matters in the first
    steps only. Tables have no weight decay.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float, betas: tuple[float, float]) -> None:
        super().__init__(groups, lr=lr, betas=betas)
        self.touched: Touched | None = None  # by the last step

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step; `closure` computes the loss and the gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.touched = None
        tables = []
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None and table.grad.is_sparse:
                    tables.append((table, table.grad.coalesce()))
                    self._step_rows(*tables[-1], group)
                    table.grad = None  # AdamW leaves it alone
        super().step()
        for table, gradient in tables:
            table.grad = gradient
        return loss

    @torch.no_grad()
    def catch_up(self, table: Tensor, rows: Tensor | None = None) -> None:
        """Moves rows to where AdamW would have them now.

        Args:
            table: (N, D), one of the parameters.
            rows: of any shape, repeats allowed; None for the whole table.
        """
        state = self.state[table]
        if not state or not state["step"]:
            return
        (group,) = (g for g in self.param_groups if any(p is table for p in g["params"]))
        beta1, beta2 = group["betas"]
        ratio = beta1 / beta2**0.5  # of one step's length to that of the step before
        step = float(state["step"])
        unit = group["lr"] * (1 - beta2**step) ** 0.5 / (1 - beta1**step)
        for part in _parts(table, rows):
            rest = (step - state["touched_at"][part]).unsqueeze(1)  # (R, 1) steps
            first, second = state["exp_avg"][part], state["exp_avg_sq"][part]  # (R, D)
            missed = unit * ratio * (1 - ratio**rest) / (1 - ratio)
            table[part] -= missed * first / second.sqrt().clamp_min(1e-12)
            state["exp_avg"][part] = first * beta1**rest
            state["exp_avg_sq"][part] = second * beta2**rest
            state["touched_at"][part] = step

    def _step_rows(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        rows, values = gradient.indices()[0], gradient.values()  # (R,), (R, D)
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:
            state["step"] = torch.zeros(())
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
            state["touched_at"] = torch.zeros(len(table), device=table.device)
        self.catch_up(table, rows)
        state["step"] += 1
        step = float(state["step"])
        first = torch.lerp(values, state["exp_avg"][rows], beta1)
        second = torch.lerp(values.square(), state["exp_avg_sq"][rows], beta2)
        state["exp_avg"][rows], state["exp_avg_sq"][rows] = first, second
        state["touched_at"][rows] = step
        size = (second / (1 - beta2**step)).sqrt() + group["eps"]
        before = table[rows]
        table[rows] = before - group["lr"] / (1 - beta1**step) * first / size
        self.touched = Touched(table, rows, before)


def _parts(table: Tensor, rows: Tensor | None) -> Iterator[Tensor | slice]:
    if rows is not None:
        yield torch.unique(rows)
        return
    for start in range(0, len(table), ROWS_AT_ONCE):
        yield slice(start, start + ROWS_AT_ONCE)


def clip_norm(parameters: Iterable[Tensor], largest: float) -> None:
    """Scales all gradients, sparse ones too, so that their common norm is at most `largest`."""
    values = []
    for parameter in parameters:
        if parameter.grad is None:
            continue
        if parameter.grad.is_sparse:
            parameter.grad = parameter.grad.coalesce()
            values.append(parameter.grad.values())
        else:
            values.append(parameter.grad)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(v) for v in values]))
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    for value in values:
        value.mul_(scale)
