"""RecTools' SASRec by its own `fit`, data loader and optimiser; our split, our metrics.

    python with_rectools.py speed JOB.json     an epoch for every line of standard input
    python with_rectools.py quality JOB.json   to the best validation epoch, and the test's ranks

Answers are JSON lines on standard output. Left as RecTools has them: Adam with betas .9 and .98,
learned positions, padding to the left up to session_max_len, the data loader without workers.
"""

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd  # type: ignore[import-untyped,import-not-found,unused-ignore]  # in its own environment
import pytorch_lightning as pl
import torch
from numpy.typing import NDArray
from rectools import Columns  # type: ignore[import-not-found]  # in its own environment
from rectools.dataset import Dataset  # type: ignore[import-not-found]  # see above
from rectools.models import SASRecModel  # type: ignore[import-not-found]  # see above

from bench.trainers.job import Job, load_split
from model.clicks.histories import Histories, Split
from model.evaluation.metrics import evaluate_scorer

ANSWERS, sys.stdout = sys.stdout, sys.stderr  # what libraries print goes to the log


def answer(**fields: Any) -> None:
    """Tells the benchmark something."""
    print(json.dumps(fields), file=ANSWERS, flush=True)


def interactions(train: Histories) -> pd.DataFrame:
    """One row a click; its place in the history stands for the time."""
    rank = np.arange(len(train.items)) - np.repeat(train.offsets[:-1], train.lengths)
    return pd.DataFrame(
        {
            Columns.User: np.repeat(np.arange(len(train)), train.lengths),
            Columns.Item: train.items.astype(np.int64),
            Columns.Weight: 1.0,
            Columns.Datetime: pd.to_datetime(rank, unit="s"),
        }
    )


class RecToolsScorer:
    """Scores of the last state, as RecTools' `recommend` computes them, over our catalogue."""

    name = "RecTools SASRec"

    def __init__(self, module: Any, n_items: int) -> None:
        self._model = module.torch_model
        self._max_length = module.data_preparator.session_max_len
        own = module.data_preparator.item_id_map.get_external_sorted_by_internal()
        self._rows = np.zeros(n_items + 1, np.int64)  # 0 is its padding: an item never trained on
        for row, item in enumerate(own):
            if row >= module.data_preparator.n_item_extra_tokens:
                self._rows[item] = row

    @torch.no_grad()
    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items), -inf for items never trained on."""
        padded = np.zeros((len(histories), self._max_length), np.int64)
        for user in range(len(histories)):
            rows = self._rows[histories[user]]
            rows = rows[rows > 0][-self._max_length :]
            padded[user, self._max_length - len(rows) :] = rows
        self._model.eval()
        table = self._model.item_model.get_all_embeddings()
        states = self._model.encode_sessions({"x": torch.from_numpy(padded)}, table)[:, -1]
        logits: NDArray[np.float32] = self._model.similarity_module(states, table).numpy()
        self._model.train()
        known = self._rows[:-1]
        return np.where(known > 0, logits[:, known], np.float32(-np.inf))


class Speed(pl.Callback):
    """Waits for a line before each epoch, and tells its clicks and seconds."""

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Waits."""
        if not sys.stdin.readline():
            raise SystemExit("nobody is there to wait for")
        self._clicks = 0
        self._start = time.perf_counter()

    def on_train_batch_start(
        self,
        trainer: pl.Trainer,  # noqa: ARG002  # Lightning's
        pl_module: pl.LightningModule,  # noqa: ARG002  # Lightning's
        batch: Any,
        batch_idx: int,  # noqa: ARG002  # Lightning's
    ) -> None:
        """Counts the positions that get a loss: those whose target is no padding."""
        self._clicks += int((batch["y"] != 0).sum())

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Tells."""
        answer(clicks=self._clicks, seconds=time.perf_counter() - self._start)


class Quality(pl.Callback):
    """Early stopping by validation NDCG@10, kept after every epoch so that it can go on."""

    def __init__(self, job: Job, split: Split) -> None:
        self._job = job
        self._split = split
        self.path = Path(job.folder) / "rectools.pt"
        self.state: dict[str, Any] = {"epoch": 0, "best": -1.0, "best_epoch": 0, "seconds": 0.0}

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Goes on from the last epoch of an earlier call."""
        if self.path.exists():
            self.state = torch.load(self.path, weights_only=True)
            module: Any = pl_module  # RecTools'
            module.torch_model.load_state_dict(self.state["model"])
            module.is_fitted = True  # or it would begin from random weights
            trainer.optimizers[0].load_state_dict(self.state["optimizer"])
            torch.set_rng_state(self.state["random"])
        trainer.should_stop = self._done()

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: ARG002  # Lightning's
        """Starts the clock."""
        self._start = time.perf_counter()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Validates, keeps everything, and stops where it is time to."""
        scorer = RecToolsScorer(pl_module, self._split.train.n_items)
        evaluation = evaluate_scorer(scorer, self._split.validation, remove_seen=True)
        found, state = evaluation.metrics["NDCG@10"], self.state
        state["epoch"] += 1
        state["seconds"] += time.perf_counter() - self._start
        module: Any = pl_module  # RecTools'
        model = module.torch_model.state_dict()
        if found > state["best"]:
            weights = {name: value.clone() for name, value in model.items()}
            state |= {"best": found, "best_epoch": state["epoch"], "weights": weights}
        optimizer = trainer.optimizers[0].state_dict()
        state |= {"model": model, "optimizer": optimizer, "random": torch.get_rng_state()}
        part = self.path.with_suffix(".part")
        torch.save(state, part)
        part.replace(self.path)
        print(f"epoch {state['epoch']}: {found:.4f}, {state['seconds']:.0f} s", flush=True)
        trainer.should_stop = self._done()

    def _done(self) -> bool:
        patient = self.state["epoch"] - self.state["best_epoch"] < self._job.patience
        return not patient or self.state["seconds"] > self._job.minutes * 60


def fit(job: Job, train: Histories, callback: pl.Callback, epochs: int) -> Any:
    """RecTools' own fit; -1 epochs go on until the callback stops them."""

    def trainer() -> pl.Trainer:
        return pl.Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[callback],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )

    model = SASRecModel(
        n_blocks=job.blocks,
        n_heads=job.heads,
        n_factors=job.width,
        dropout_rate=job.dropout,
        session_max_len=job.max_length,
        loss="softmax",
        lr=job.learning_rate,
        batch_size=job.batch,
        get_trainer_func=trainer,
    )
    model.fit(Dataset.construct(interactions(train)))
    return model


def quality(job: Job, split: Split) -> None:
    """Trains to the best epoch and ranks the test cases once."""
    callback = Quality(job, split)
    module = fit(job, split.train, callback, -1).lightning_model
    state = torch.load(callback.path, weights_only=True)
    module.torch_model.load_state_dict(state["weights"])
    scorer = RecToolsScorer(module, split.train.n_items)
    np.save(
        Path(job.folder) / "ranks.npy", evaluate_scorer(scorer, split.test, remove_seen=True).ranks
    )
    facts = {name: state[name] for name in ("epoch", "best_epoch", "best", "seconds")}
    parameters = sum(value.numel() for value in module.torch_model.parameters())
    answer(**facts, parameters=parameters, version=version("rectools"))


def main(verb: str, path: str) -> None:
    """Does what was asked for."""
    job = Job(**json.loads(Path(path).read_text()))
    torch.set_num_threads(job.threads)
    pl.seed_everything(job.seed)
    split = load_split(Path(job.split))
    if verb == "speed":
        fit(job, split.train, Speed(), 1 + job.rounds)
    else:
        quality(job, split)


if __name__ == "__main__":
    main(*sys.argv[1:])
