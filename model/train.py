"""The training loop on Lightning: checkpoints, resume, early stopping, seeds, learning curves."""

import dataclasses
import math
import resource
import time
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
    RichProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from model.encoder import EncoderConfig, UserEncoder
from model.histories import Split
from model.metrics import evaluate_scorer
from model.objective import objective
from model.recipe import Recipe, TrainingRecipe
from model.scorer import EncoderScorer
from model.training_callbacks import Speed, moving_mean
from model.windows import LengthGroupedBatches, WindowBatch, Windows

LAST, BEST = "last.ckpt", "best.ckpt"


class NextClick(L.LightningModule):
    """An encoder with its objective, optimiser and validation."""

    def __init__(
        self,
        encoder: UserEncoder,
        recipe: TrainingRecipe,
        batches: int,
        split: Split,
        *,
        seen: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.recipe = recipe
        self._batches = batches  # an epoch, of all processes
        self._validation = split.validation
        self._remove_seen = seen

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:  # noqa: ARG002  # Lightning passes it
        """Loss of one batch."""
        # Randomness depends on seed and step alone, so that a resumed run is an unbroken one:
        # loaders draw from the global generator at moments that a resumption moves.
        step = self.recipe.seed * 1_000_003 + self.global_step
        torch.manual_seed(step * self.trainer.world_size + self.global_rank)
        shown = batch.item_ids
        hidden = torch.rand(shown.shape, device=shown.device) < self.recipe.unknown_rate
        shown = shown.masked_fill(hidden, self.encoder.n_items)
        batch = dataclasses.replace(batch, item_ids=shown)
        loss = objective(
            self.encoder,
            batch,
            self.recipe.candidates,
            self.recipe.negatives,
            shared=self.recipe.share_negatives,
        )
        size = len(shown)
        self.log(
            "loss",
            loss,
            on_step=False,
            on_epoch=True,
            prog_bar=True,
            batch_size=size,
            sync_dist=True,
        )
        return loss

    def validation_step(self, batch: list[Tensor], batch_idx: int) -> None:  # noqa: ARG002  # see above
        """Ranks the validation cases; one step does all, in every process, by like length."""
        scorer = EncoderScorer(self.encoder)
        metrics = evaluate_scorer(scorer, self._validation, remove_seen=self._remove_seen).metrics
        for name, estimate in metrics.estimates.items():
            shown = name == self.recipe.monitor
            self.log(name, estimate.mean, prog_bar=shown, batch_size=1, sync_dist=True)

    def configure_optimizers(self) -> Any:
        """AdamW with warm-up, then constant or cosine down to a tenth."""
        matrices: list[Tensor] = []
        others: list[Tensor] = []
        for name, parameter in self.encoder.named_parameters():
            decays = parameter.ndim > 1 and "embedding" not in name
            (matrices if decays else others).append(parameter)
        groups = [
            {"params": matrices, "weight_decay": self.recipe.weight_decay},
            {"params": others, "weight_decay": 0.0},
        ]
        rate = self.recipe.learning_rate
        optimizer = torch.optim.AdamW(groups, lr=rate, betas=(0.9, 0.98))
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / (self.recipe.warmup_steps + 1))
        if self.recipe.schedule == "constant":
            return warm
        steps = math.ceil(self._batches / self.trainer.world_size) * self.recipe.epochs
        done = min(1.0, step / steps)
        return warm * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * done)))


@dataclass(frozen=True)
class TrainingResult:
    """How a run went."""

    epochs: int  # run in all, over every resumption
    best_epoch: int  # counted from 1
    monitor: str
    best: float  # of the monitor, on the validation cases
    seconds: float  # of this call, validation included
    clicks_per_second: float  # of this call's training steps
    peak_memory_megabytes: float  # resident, of the process
    training_clicks: int  # learned from in each epoch
    parameters: int
    device: str
    precision: str


def train_encoder(
    recipe: Recipe,
    split: Split,
    run: Path,
    *,
    progress: bool = True,
    devices: int | Literal["auto"] = "auto",
) -> TrainingResult:
    """Trains into the folder `run`, going on from its last checkpoint if there is one.

    Checkpoints are written after each validation: `checkpoints/last.ckpt`, and `best.ckpt` by the
    recipe's monitor. `curves/version_<n>/metrics.csv` holds the learning curves, one file a call.

    On several devices, by default all GPUs, Lightning starts the same command once more for each
    other device; every step then learns from a batch a device.
    """
    training = recipe.training
    torch.manual_seed(training.seed)
    encoder = UserEncoder(recipe.encoder, split.train.n_items)
    windows = Windows(
        split.train, recipe.encoder.max_length, newest_only=training.windows == "newest"
    )
    batches = LengthGroupedBatches(
        windows, training.max_batch_tokens, training.max_batch, training.seed
    )
    module = NextClick(encoder, training, len(batches), split, seen=recipe.data.remove_seen)
    speed, best = Speed(), _best_checkpoint(training, run)
    trainer = _trainer(training, run, [speed, best], progress=progress, devices=devices)
    started = time.monotonic()
    _fit(trainer, module, DataLoader(windows, batch_size=None, sampler=batches), run)
    return TrainingResult(
        epochs=trainer.current_epoch,
        best_epoch=_best_epoch(run),
        monitor=training.monitor,
        best=_best_score(best),
        seconds=time.monotonic() - started,
        clicks_per_second=speed.clicks / speed.seconds if speed.clicks else math.nan,
        peak_memory_megabytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        training_clicks=len(split.train.items),
        parameters=sum(parameter.numel() for parameter in encoder.parameters()),
        device=str(trainer.strategy.root_device),
        precision=trainer.precision,
    )


def _best_checkpoint(recipe: TrainingRecipe, run: Path) -> ModelCheckpoint:
    return ModelCheckpoint(
        run / "checkpoints",
        filename=Path(BEST).stem,
        monitor=recipe.monitor,
        mode="max",
        save_last=True,
        every_n_epochs=recipe.validate_every,
        enable_version_counter=False,
        save_on_train_epoch_end=True,  # after validation, when the epoch counts as done
    )


def _trainer(
    recipe: TrainingRecipe,
    run: Path,
    callbacks: list[Callback],
    *,
    progress: bool,
    devices: int | Literal["auto"],
) -> L.Trainer:
    callbacks = [*callbacks, EarlyStopping(recipe.monitor, mode="max", patience=recipe.patience)]
    if recipe.averaging:
        # First, so that what is validated and kept as the best is the mean.
        callbacks = [WeightAveraging(avg_fn=moving_mean(recipe.averaging)), *callbacks]
    return L.Trainer(
        max_epochs=recipe.epochs,
        devices=devices,
        use_distributed_sampler=False,  # batches are dealt out by `LengthGroupedBatches`
        precision=bf16_where_fast() if recipe.precision == "auto" else recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
        check_val_every_n_epoch=recipe.validate_every,
        callbacks=[*callbacks, RichProgressBar()] if progress else callbacks,
        logger=CSVLogger(run, name="curves"),  # a new version for each resumption
        log_every_n_steps=1,  # nothing is logged but by epoch
        enable_progress_bar=progress,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def bf16_where_fast() -> Literal["bf16-mixed", "32-true"]:
    """Mixed precision in bf16 if the GPU, or without one the CPU, multiplies it natively."""
    if torch.cuda.is_available():
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        able = torch.cpu.get_capabilities()
        fast = bool(able.get("avx512_bf16") or able.get("amx_bf16"))
    return "bf16-mixed" if fast else "32-true"


def _fit(
    trainer: L.Trainer, module: NextClick, batches: "DataLoader[WindowBatch]", run: Path
) -> None:
    last = run / "checkpoints" / LAST
    with warnings.catch_warnings():
        # Lightning's own call; and loaders whose batches are ready-made need no workers.
        warnings.filterwarnings("ignore", message=".*LeafSpec")
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        trainer.fit(
            module,
            batches,
            DataLoader(TensorDataset(torch.zeros(1))),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )


def _best_score(best: ModelCheckpoint) -> float:
    return math.nan if best.best_model_score is None else float(best.best_model_score)


def _best_epoch(run: Path) -> int:
    checkpoint = torch.load(run / "checkpoints" / BEST, weights_only=True)
    return int(checkpoint["epoch"]) + 1


def load_encoder(config: EncoderConfig, n_items: int, run: Path) -> UserEncoder:
    """The best encoder of a run, in eval mode, on the CPU."""
    checkpoint = torch.load(run / "checkpoints" / BEST, weights_only=True, map_location="cpu")
    prefix = "encoder."
    state = {
        name.removeprefix(prefix): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    encoder = UserEncoder(config, n_items)
    encoder.load_state_dict(state)
    return encoder.eval()
