"""An encoder with all that Lightning's loop asks of it: loss, validation and optimiser."""

import dataclasses
import math
from functools import partial
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from model.clicks.histories import Split
from model.errors import RecipeError
from model.evaluation.metrics import Metrics, target_ranks
from model.evaluation.scorer import EncoderScorer
from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from model.training.objective import objective
from model.training.recipe import TrainingRecipe
from model.training.row_adam import RowAdamW, clip_norm
from model.training.time_limit import TimeLimit
from model.training.windows import WindowBatch

WARM_SHARE = 0.05  # of a limited time, at most, until the learning rate has risen


class NextClick(L.LightningModule):
    """An encoder with its objective, optimiser and validation."""

    def __init__(
        self,
        encoder: UserEncoder,
        recipe: TrainingRecipe,
        batches: int,
        split: Split,
        *,
        remove_seen: bool,
        limit: TimeLimit,
        penalty: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.recipe = recipe
        self._batches = batches  # per epoch, of all processes
        n_cases = recipe.validation_cases or len(split.validation.targets)
        self._validation = split.validation.sample(n_cases, recipe.seed)
        self._remove_seen = remove_seen
        self._limit = limit
        self._penalty = penalty

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:  # noqa: ARG002  # Lightning passes it
        """The loss of one batch."""
        # Random numbers depend on seed and step alone, so that a resumed run equals an unbroken
        # one: data loaders draw from the global generator at other moments after resuming.
        step = self.recipe.seed * 1_000_003 + self.global_step
        torch.manual_seed(step * self.trainer.world_size + self.global_rank)
        shown = batch.item_ids
        hidden = torch.rand(shown.shape, device=shown.device) < self.recipe.unknown_rate
        shown = shown.masked_fill(hidden, self.encoder.n_items)
        batch = dataclasses.replace(
            batch, item_ids=shown, gaps=self._asked(batch), columns=self._columns(batch)
        )
        loss = objective(
            self.encoder,
            batch,
            self.recipe.candidates,
            self.recipe.negatives,
            shared=self.recipe.share_negatives,
            penalty=self._penalty,
        )
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(shown), sync_dist=True)
        return loss

    def _asked(self, batch: WindowBatch) -> Tensor | None:
        """The time of asking, of some positions alone: the encoder serves with it and without."""
        if batch.gaps is None:
            return None
        known = torch.rand(batch.gaps.shape, device=batch.gaps.device) < self.recipe.asked_rate
        return batch.gaps.masked_fill(~known, 0.0)

    def _columns(self, batch: WindowBatch) -> tuple[Tensor, ...]:
        """The columns of clicks, some categories hidden: that trains the vector of unknown ones."""
        columns = []
        for values, column in zip(batch.columns, self.encoder.config.columns.values(), strict=True):
            if column.kind == "category":
                hidden = torch.rand(values.shape, device=values.device) < self.recipe.unknown_rate
                columns.append(values.masked_fill(hidden, len(column.values)))
            else:
                columns.append(values)
        return tuple(columns)

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: ARG002  # Lightning passes it
        """Ranks all validation cases in one step, in every process.

        Raises:
            RecipeError: training has diverged.
        """
        if not all(parameter.isfinite().all() for parameter in self.encoder.parameters()):
            raise RecipeError(
                f"training diverged in epoch {self.current_epoch + 1}: weights are not finite; "
                f"use a learning_rate below {self.recipe.learning_rate:g}"
            )
        scorer = EncoderScorer(self.encoder)
        metrics = Metrics.of(target_ranks(scorer, self._validation, self._remove_seen))
        for name, estimate in metrics.estimates.items():
            self.log(name, estimate.mean, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW; the rate warms up, then stays constant or falls to a tenth along a cosine."""
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in self.encoder.named_parameters():
            decays = parameter.ndim > 1 and "embedding" not in name
            (matrices if decays else others).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        rate, betas = self.recipe.learning_rate, (0.9, 0.98)
        # Sampled negatives leave most rows of the table without a gradient. Processes that train
        # together add up their gradients, which not every backend can do with sparse ones.
        items = self.encoder.item_embedding
        items.sparse = bool(self.recipe.negatives) and self.trainer.world_size == 1
        optimizer: torch.optim.Optimizer
        if items.sparse:
            optimizer = by_row = RowAdamW(groups, lr=rate, betas=betas)
            items.register_forward_pre_hook(partial(_catch_up, by_row))
        else:
            optimizer = torch.optim.AdamW(groups, lr=rate, betas=betas)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def on_validation_model_eval(self) -> None:
        """Brings the whole table up to date, before anything reads it."""
        optimizer = self.trainer.optimizers[0]
        if isinstance(optimizer, RowAdamW):
            optimizer.catch_up(_learned(self.encoder.item_embedding))
        super().on_validation_model_eval()

    def configure_gradient_clipping(
        self,
        optimizer: torch.optim.Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Limits the norm of the gradient; Lightning's own way cannot take a sparse one."""
        if isinstance(optimizer, RowAdamW):
            clip_norm(self.parameters(), self.recipe.gradient_clip)
        else:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / (self.recipe.warmup_steps + 1))
        if self._limit.share:  # a short time must not end while the rate still rises
            warm = max(warm, min(1.0, self._limit.share / WARM_SHARE))
        if self.recipe.schedule == "constant":
            return warm
        steps = math.ceil(self._batches / self.trainer.world_size) * self.recipe.epochs
        done = min(1.0, max(step / steps, self._limit.share))
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


def _learned(items: nn.Embedding | ItemTable) -> Tensor:
    """The rows that are learned one by one."""
    return items.learned if isinstance(items, ItemTable) else items.weight


def _catch_up(
    optimizer: RowAdamW, items: nn.Embedding | ItemTable, arguments: tuple[Tensor]
) -> None:
    """Brings the rows that a training step is about to read up to date."""
    if items.training:
        optimizer.catch_up(_learned(items), arguments[0])
