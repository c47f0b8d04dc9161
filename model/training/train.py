"""The training loop on Lightning: checkpoints, resuming, early stopping, seeds, learning curves."""

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
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from model.clicks.histories import Split
from model.errors import RecipeError
from model.evaluation.metrics import Metrics, target_ranks
from model.evaluation.scorer import EncoderScorer
from model.network.encoder import EncoderConfig, UserEncoder
from model.training.callbacks import RunProgress, Speed, moving_mean
from model.training.objective import objective
from model.training.recipe import Recipe, TrainingRecipe
from model.training.run import check_split
from model.training.windows import LengthGroupedBatches, WindowBatch, Windows

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
        remove_seen: bool,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.recipe = recipe
        self._batches = batches  # per epoch, of all processes
        n_cases = recipe.validation_cases or len(split.validation.targets)
        self._validation = split.validation.sample(n_cases, recipe.seed)
        self._remove_seen = remove_seen

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:  # noqa: ARG002  # Lightning passes it
        """The loss of one batch."""
        # Random numbers depend on seed and step alone, so that a resumed run equals an unbroken
        # one: data loaders draw from the global generator at other moments after resuming.
        step = self.recipe.seed * 1_000_003 + self.global_step
        torch.manual_seed(step * self.trainer.world_size + self.global_rank)
        shown = batch.item_ids
        hidden = torch.rand(shown.shape, device=shown.device) < self.recipe.unknown_rate
        shown = shown.masked_fill(hidden, self.encoder.n_items)
        batch = dataclasses.replace(batch, item_ids=shown, gaps=self._asked(batch))
        loss = objective(
            self.encoder,
            batch,
            self.recipe.candidates,
            self.recipe.negatives,
            shared=self.recipe.share_negatives,
        )
        self.log("loss", loss, on_step=False, on_epoch=True, batch_size=len(shown), sync_dist=True)
        return loss

    def _asked(self, batch: WindowBatch) -> Tensor | None:
        """The time of asking, of some positions alone: the encoder serves with it and without."""
        if batch.gaps is None:
            return None
        known = torch.rand(batch.gaps.shape, device=batch.gaps.device) < self.recipe.asked_rate
        return batch.gaps.masked_fill(~known, 0.0)

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
    """Results and costs of a run."""

    epochs: int  # in total, over all calls
    best_epoch: int  # counted from 1
    monitor: str
    best: float  # of the monitor, on the validation cases
    seconds: float  # of this call, validation included
    clicks_per_second: float  # of this call's training steps
    peak_memory_megabytes: float  # resident memory of the process
    training_clicks: int  # in each epoch
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
    """Trains into the folder `run`, and resumes from its last checkpoint if there is one.

    Each validation writes checkpoints: `checkpoints/last.ckpt`, and `best.ckpt` by the recipe's
    monitor. `curves/version_<n>/metrics.csv` holds the learning curves, one file per call.

    On several devices, by default all GPUs, Lightning starts the same command again for each
    further device; every step then uses one batch per device.

    Raises:
        DataError: the split leaves nothing to train on or to validate on.
        RecipeError: training diverged.
    """
    check_split(split)
    training = recipe.training
    torch.manual_seed(training.seed)
    encoder = UserEncoder(recipe.encoder, split.train.n_items)
    windows = Windows(
        split.train,
        recipe.encoder.max_length,
        newest_only=training.windows == "newest",
        timed=recipe.encoder.time != "none",
    )
    batches = LengthGroupedBatches(
        windows, training.max_batch_tokens, training.max_batch, training.seed
    )
    module = NextClick(encoder, training, len(batches), split, remove_seen=recipe.data.remove_seen)
    speed, best = Speed(), _best_checkpoint(training, run)
    callbacks = [speed, best, *([RunProgress(training.monitor)] if progress else [])]
    trainer = _trainer(training, run, callbacks, devices)
    started = time.monotonic()
    _fit(trainer, module, DataLoader(windows, batch_size=None, sampler=batches), run)
    best_epoch, best_score = _best(run, best)
    return TrainingResult(
        epochs=trainer.current_epoch,
        best_epoch=best_epoch,
        monitor=training.monitor,
        best=best_score,
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
        save_on_train_epoch_end=True,  # after validation, when the epoch is complete
    )


def _trainer(
    recipe: TrainingRecipe,
    run: Path,
    callbacks: list[Callback],
    devices: int | Literal["auto"],
) -> L.Trainer:
    callbacks = [*callbacks, EarlyStopping(recipe.monitor, mode="max", patience=recipe.patience)]
    if recipe.averaging:
        # First, so that validation and the best checkpoint use the mean.
        callbacks = [WeightAveraging(avg_fn=moving_mean(recipe.averaging)), *callbacks]
    return L.Trainer(
        max_epochs=recipe.epochs,
        devices=devices,
        use_distributed_sampler=False,  # `LengthGroupedBatches` distributes the batches
        precision=bf16_where_fast() if recipe.precision == "auto" else recipe.precision,
        gradient_clip_val=recipe.gradient_clip,
        check_val_every_n_epoch=recipe.validate_every,
        callbacks=callbacks,
        logger=CSVLogger(run, name="curves"),  # a new version for each call
        log_every_n_steps=1,  # otherwise Lightning warns of epochs with fewer steps
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )


def bf16_where_fast() -> Literal["bf16-mixed", "32-true"]:
    """Mixed precision in bf16 if the GPU, or else the CPU, has instructions for it."""
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
        warnings.filterwarnings("ignore", message=".*LeafSpec")  # Lightning's own call
        warnings.filterwarnings("ignore", message="Checkpoint directory .* is not empty")
        # Making a batch is cheap, so loading needs no worker processes.
        warnings.filterwarnings("ignore", message=".*does not have many workers")
        try:
            trainer.fit(
                module,
                batches,
                DataLoader(TensorDataset(torch.zeros(1))),
                ckpt_path=last if last.exists() else None,
                weights_only=True,
            )
        except SystemExit:
            if trainer.interrupted:  # Lightning exits on Ctrl-C; the caller decides what to do
                raise KeyboardInterrupt from None
            raise


def _best(run: Path, callback: ModelCheckpoint) -> tuple[int, float]:
    """Epoch, from 1, and score of the best checkpoint. A moved run's callback forgets its score."""
    checkpoint = torch.load(run / "checkpoints" / BEST, weights_only=True)
    score = checkpoint["callbacks"][callback.state_key]["best_model_score"]
    return int(checkpoint["epoch"]) + 1, float(score)


def load_encoder(config: EncoderConfig, n_items: int, run: Path) -> UserEncoder:
    """The best encoder of a run, in eval mode, on the CPU.

    Raises:
        RecipeError: the run has no checkpoint yet.
    """
    path = run / "checkpoints" / BEST
    if not path.is_file():
        raise RecipeError(
            f"{run}: no checkpoint yet; the run was interrupted in its first epochs, and the same "
            "`persona train` command goes on with it"
        )
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    prefix = "encoder."
    state = {
        name.removeprefix(prefix): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    encoder = UserEncoder(config, n_items)
    encoder.load_state_dict(state)
    return encoder.eval()
