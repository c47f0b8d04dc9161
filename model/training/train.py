"""The training loop on Lightning: checkpoints, resuming, early stopping, seeds, learning curves."""

import math
import resource
import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import lightning as L
import torch
from lightning.pytorch.callbacks import (
    Callback,
    EarlyStopping,
    ModelCheckpoint,
)
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from model.clicks.histories import Split
from model.errors import RecipeError
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from model.training.averaging import MeanOfWeights
from model.training.interrupt import Interrupt
from model.training.next_click import NextClick
from model.training.progress import RunProgress, Speed
from model.training.recipe import Recipe, TrainingRecipe
from model.training.run import check_split
from model.training.time_limit import TimeLimit
from model.training.windows import LengthGroupedBatches, WindowBatch, Windows
from persona.contract import Floats

LAST, BEST = "last.ckpt", "best.ckpt"


@dataclass(frozen=True)
class TrainingResult:
    """Results and costs of a run."""

    epochs: int  # in total, over all calls
    best_epoch: int  # counted from 1
    monitor: str
    best: float  # of the monitor, on the validation cases
    seconds: float  # of this call, validation included
    total_seconds: float  # of all calls
    out_of_time: bool  # whether `minutes` ended it
    validation_seconds: float  # of this call
    step_seconds: float  # mean of this call's steps
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
    weights: Mapping[str, Tensor] | None = None,
    features: Floats | None = None,
) -> TrainingResult:
    """Trains into the folder `run`, and resumes from its last checkpoint if there is one.

    Each validation writes checkpoints: `checkpoints/last.ckpt`, and `best.ckpt` by the recipe's
    monitor. `curves/version_<n>/metrics.csv` holds the learning curves, one file per call.

    On several devices, by default all GPUs, Lightning starts the same command again for each
    further device; every step then uses one batch per device.

    `weights` are the state that the encoder starts from, by default a random one. `features` are
    those of the items, (n_items, F), where the recipe has `items`.

    Raises:
        DataError: the split leaves nothing to train on or to validate on.
        RecipeError: training diverged.
    """
    check_split(split)
    training = recipe.training
    torch.manual_seed(training.seed)
    encoder = new_encoder(recipe, split.train.n_items, features)
    if weights is not None:
        encoder.load_state_dict(weights)
    windows = Windows(
        split.train,
        recipe.encoder.max_length,
        newest_only=training.windows == "newest",
        timed=recipe.encoder.time != "none",
        columns=recipe.encoder.columns,
    )
    batches = LengthGroupedBatches(
        windows, training.max_batch_tokens, training.max_batch, training.seed
    )
    speed, limit, best = Speed(), TimeLimit(training.minutes), _best_checkpoint(training, run)
    callbacks: list[Callback] = [Interrupt(), speed, limit, best]
    if progress:
        callbacks.append(RunProgress(training.monitor, training.validate_every, speed, limit))
    trainer = _trainer(training, run, callbacks, devices)
    module = NextClick(
        encoder,
        training,
        len(batches),
        split,
        remove_seen=recipe.data.remove_seen,
        limit=limit,
        penalty=recipe.items.penalty if recipe.items else 0.0,
    )
    started = time.monotonic()
    _fit(trainer, module, DataLoader(windows, batch_size=None, sampler=batches), run)
    best_epoch, best_score = _best(run, best)
    return TrainingResult(
        epochs=trainer.current_epoch,
        best_epoch=best_epoch,
        monitor=training.monitor,
        best=best_score,
        seconds=time.monotonic() - started,
        total_seconds=limit.seconds,
        out_of_time=limit.reached,
        validation_seconds=speed.validation_seconds,
        step_seconds=speed.seconds / speed.steps if speed.steps else math.nan,
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
        callbacks = [MeanOfWeights(recipe.averaging), *callbacks]
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


def new_encoder(recipe: Recipe, n_items: int, features: Floats | None) -> UserEncoder:
    """A random encoder, whose items have features, (n_items, F), where the recipe says so."""
    table = None
    if recipe.items is not None and features is not None:
        table = ItemTable(torch.from_numpy(features), recipe.encoder.width, recipe.items.drop)
    return UserEncoder(recipe.encoder, n_items, table)


def load_encoder(config: EncoderConfig, n_items: int, run: Path) -> UserEncoder:
    """The best encoder of a run, in eval mode, on the CPU.

    Raises:
        RecipeError: the run has no checkpoint yet.
    """
    path = run / "checkpoints" / BEST
    if not path.is_file():
        raise RecipeError(
            f"{run}: no checkpoint yet; the run was interrupted in its first epochs, and the same "
            "`persona train` command continues it"
        )
    checkpoint = torch.load(path, weights_only=True, map_location="cpu")
    prefix = "encoder."
    state = {
        name.removeprefix(prefix): value
        for name, value in checkpoint["state_dict"].items()
        if name.startswith(prefix)
    }
    features = state.get("item_embedding.features")  # (n_items + 1, F)
    table = None if features is None else ItemTable(features[:-1], config.width)
    encoder = UserEncoder(config, n_items, table)
    encoder.load_state_dict(state)
    return encoder.eval()
