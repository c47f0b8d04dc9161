"""The job of a contender: the split in one file, and the sizes. Needs only NumPy."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from model.clicks.histories import Cases, Histories, Split


@dataclass(frozen=True)
class Job:
    """One training, by whoever does it."""

    split: str  # .npz of `save_split`
    folder: str  # what is kept between calls
    width: int
    blocks: int
    heads: int
    max_length: int
    dropout: float
    batch: int = 128  # histories
    learning_rate: float = 1e-3
    threads: int = 2
    seed: int = 0
    rounds: int = 3  # of the speed test, after a warm-up; an epoch each
    patience: int = 10  # epochs without a better validation NDCG@10
    minutes: float = 180  # no epoch begins after so many minutes of training


def save_split(split: Split, path: Path) -> None:
    """Writes a split whose users and items are numbered."""
    parts = {
        "train": split.train,
        "validation": split.validation.histories,
        "test": split.test.histories,
    }
    arrays = {"n_items": np.array(split.train.n_items)}
    for name, histories in parts.items():
        arrays |= {f"{name}_items": histories.items, f"{name}_offsets": histories.offsets}
    for name, cases in (("validation", split.validation), ("test", split.test)):
        arrays[f"{name}_targets"] = cases.targets
    np.savez(path, allow_pickle=False, **arrays)


def load_split(path: Path) -> Split:
    """Reads what `save_split` wrote."""
    with np.load(path) as arrays:
        item_ids = range(int(arrays["n_items"]))
        train, validation, test = (
            Histories(
                range(len(arrays[f"{name}_offsets"]) - 1),
                item_ids,
                arrays[f"{name}_items"],
                arrays[f"{name}_offsets"],
            )
            for name in ("train", "validation", "test")
        )
        return Split(
            train,
            Cases(validation, arrays["validation_targets"]),
            Cases(test, arrays["test_targets"]),
        )


def newest(histories: Histories, clicks: int) -> Histories:
    """Every history cut to its newest clicks."""
    lengths = np.minimum(histories.lengths, clicks)
    back = histories.offsets[1:] - lengths
    offsets = np.concatenate(([0], np.cumsum(lengths)))
    where = np.arange(offsets[-1]) + np.repeat(back - offsets[:-1], lengths)
    return Histories(histories.user_ids, histories.item_ids, histories.items[where], offsets)
