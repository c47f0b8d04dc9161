"""Training: windows that lose no click, a run that survives SIGKILL, recipes that are checked."""

import csv
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from model.encoder import EncoderConfig
from model.errors import RecipeError
from model.histories import Histories, held_out_users
from model.objective import objective
from model.readers import read_clicks
from model.recipe import Recipe, TrainingRecipe, read_recipe
from model.train import load_encoder, train_encoder
from model.training_callbacks import moving_mean
from model.windows import LengthGroupedBatches, Windows
from tests.attention_kinds import ALL, Kind, each
from tests.conftest import random_encoder

RECIPE = """
name = "walk"
[data]
format = "sasrec"
split = "held_out_users"
held_out_share = 0.2
[encoder]
width = 16
max_length = 6
[training]
epochs = 6
seed = 3
warmup_steps = 5
learning_rate = 5e-3
max_batch = 16
averaging = 0.9
"""


def histories_of(*rows: list[int], n_items: int = 10) -> Histories:
    """Histories over items 0 .. n_items - 1."""
    offsets = np.concatenate(([0], np.cumsum([len(row) for row in rows])))
    items = np.array([item for row in rows for item in row], np.int32)
    return Histories(list(range(len(rows))), list(range(n_items)), items, offsets)


def walks(users: int = 120) -> Histories:
    """Users who step from item i to i + 1 of ten: an easy thing to learn."""
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, 10, users), rng.integers(2, 15, users)
    return histories_of(
        *[[(s + k) % 10 for k in range(n)] for s, n in zip(starts, lengths, strict=True)]
    )


def test_the_mean_of_weights_forgets_the_first_ones_within_a_short_run() -> None:
    mean, weight = moving_mean(0.998), torch.tensor(100.0)
    for step in range(1, 100):
        weight = mean(weight, torch.tensor(1.0), step)
    assert abs(weight - 1) < 1e-3


def test_the_mean_of_weights_never_forgets_faster_than_its_decay() -> None:
    kept = moving_mean(0.998)(torch.tensor(1.0), torch.tensor(0.0), 1_000_000)
    assert kept == pytest.approx(0.998)


def write_walks(path: Path) -> Path:
    """The same as a SASRec file."""
    histories = walks()
    lines = [
        f"{user + 1} {item + 1}\n" for user in range(len(histories)) for item in histories[user]
    ]
    path.write_text("".join(lines))
    return path


@given(
    rows=st.lists(st.lists(st.integers(0, 10), max_size=20), min_size=1, max_size=8),
    max_length=st.integers(1, 6),
)
def test_every_known_click_is_a_target_exactly_once(rows: list[list[int]], max_length: int) -> None:
    histories = histories_of(*rows)
    windows = Windows(histories, max_length)
    seen: list[int] = []
    for window in range(len(windows)):
        batch = windows[np.array([window])]
        assert batch.item_ids.shape[1] <= max_length
        seen += batch.targets[batch.target_mask].tolist()
    assert sorted(seen) == sorted(item for row in rows for item in row if item != 10)


def test_only_the_oldest_window_asks_the_start_token() -> None:
    windows = Windows(histories_of(list(range(9))), max_length=4)
    batch = windows[np.arange(len(windows))]
    asked = {
        tuple(row.tolist()): bool(mask[0])
        for row, mask in zip(batch.targets, batch.target_mask, strict=True)
    }
    assert asked == {(4, 5, 6, 7, 8): False, (0, 1, 2, 3, 4): True}


def test_the_newest_window_alone_ends_with_the_newest_click() -> None:
    windows = Windows(histories_of(list(range(9)), [], [3, 1]), max_length=4, newest_only=True)
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
def test_processes_that_train_together_deal_out_the_batches(
    processes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = LengthGroupedBatches(Windows(walks(), 6), 64, 16, seed=1)
    whole = [batch.tolist() for batch in batches]
    hands = []
    for rank in range(processes):
        monkeypatch.setattr("model.windows._rank_of", lambda rank=rank: (rank, processes))
        hands.append([batch.tolist() for batch in batches])
        assert len(hands[-1]) == len(batches)
    dealt = [batch for turn in zip(*hands, strict=True) for batch in turn]
    assert dealt[: len(whole)] == whole
    assert dealt[len(whole) :] == whole[: len(dealt) - len(whole)]


@pytest.mark.timeout(180)
def test_two_processes_train_one_run(tmp_path: Path) -> None:
    recipe, run = tmp_path / "walk.toml", tmp_path / "run"
    recipe.write_text(RECIPE)
    data = write_walks(tmp_path / "walks.txt")
    program = str(Path(sys.executable).with_name("persona"))
    options = f"--recipe {recipe} --data {data} --output {run} --devices 2 --no-progress"
    command = [program, "train", *options.split()]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.count("best validation") == 1  # the second process keeps quiet
    facts = json.loads((run / "training.json").read_text())
    assert facts["epochs"] == 6
    assert facts["best"] > 0.5
    (curves,) = (run / "curves").iterdir()
    with (curves / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]
    train = held_out_users(read_clicks(data)[0], 0.2, seed=0).train
    whole = len(LengthGroupedBatches(Windows(train, 6), 16_384, 16, seed=0))
    assert steps[-1] + 1 == 6 * math.ceil(whole / 2)


def test_training_learns_an_easy_walk(tmp_path: Path) -> None:
    recipe = Recipe(
        name="walk",
        encoder=EncoderConfig(width=16, max_length=6),
        training=TrainingRecipe(epochs=12, learning_rate=1e-2, warmup_steps=5, max_batch=16),
    )
    result = train_encoder(recipe, held_out_users(walks(), 0.2, seed=0), tmp_path, progress=False)
    assert result.best > 0.9


def test_padding_and_batch_mates_cost_no_loss() -> None:
    """The loss of a batch is the mean over its targets, however they are batched."""
    encoder = random_encoder(EncoderConfig(width=16, max_length=6, dropout=0), 10)
    windows = Windows(histories_of([1, 2, 3], [4, 5, 6, 7, 8], [9]), 6)
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
    batch = Windows(histories_of([1, 2, 3], [4, 5, 6, 7, 8], [9]), 6)[np.arange(3)]
    torch.manual_seed(0)
    loss = objective(encoder, batch, 4)  # fewer than the catalogue: sampled negatives
    gradients = torch.autograd.grad(loss, list(encoder.candidates.parameters()))
    assert all(gradient.abs().sum() > 0 for gradient in gradients[:-1])


def start(arguments: list[str], log: Path) -> "subprocess.Popen[bytes]":
    """The command line, with its output in a file."""
    with log.open("wb") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "persona", *arguments],
            env=os.environ | {"OMP_NUM_THREADS": "1"},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(path: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_killed_by_sigkill_ends_as_an_unbroken_one(tmp_path: Path) -> None:
    (tmp_path / "walk.toml").write_text(RECIPE)
    data = write_walks(tmp_path / "walks.txt")
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    command = [
        "train",
        "--recipe",
        f"{tmp_path / 'walk.toml'}",
        "--data",
        f"{data}",
        "--no-progress",
    ]

    assert start([*command, "--output", f"{unbroken}"], tmp_path / "log").wait(200) == 0
    killed = start([*command, "--output", f"{broken}"], tmp_path / "log")
    wait_for(broken / "checkpoints" / "last.ckpt", killed)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait(60) == -signal.SIGKILL
    assert not (broken / "training.json").exists()
    assert start([*command, "--output", f"{broken}"], tmp_path / "log").wait(200) == 0

    results = [json.loads((run / "training.json").read_text()) for run in (unbroken, broken)]
    for result in results:
        for name in ("seconds", "clicks_per_second", "peak_memory_megabytes"):
            del result[name]
    assert results[0] == results[1]
    config = EncoderConfig(width=16, max_length=6)
    encoders = [load_encoder(config, 10, run) for run in (unbroken, broken)]
    for one, other in zip(*(encoder.parameters() for encoder in encoders), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_a_folder_with_another_run_is_not_overwritten(tmp_path: Path) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    run.mkdir()
    (run / "recipe.json").write_text('{"name": "another"}')
    (tmp_path / "walk.toml").write_text(RECIPE)
    data = write_walks(tmp_path / "walks.txt")
    arguments = ["--recipe", f"{tmp_path / 'walk.toml'}", "--data", f"{data}", "--output", f"{run}"]
    assert start(["train", *arguments], log).wait(120) == 1
    assert "this folder holds another run" in " ".join(log.read_text().split())
    assert "Traceback" not in log.read_text()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "name = 'x'\n[training]\nepochz = 3",
            "training.epochz: Extra inputs are not permitted, got 3",
        ),
        (
            "name = 'x'\n[encoder]\nsimilarity = 'cosine'",
            "encoder.similarity: Input should be 'dot'",
        ),
        ("name = 'x'\n[encoder]\nwidth = 10\nheads = 4", "width 10 does not divide into 4 heads"),
        ("name = ", "Invalid value"),
    ],
    ids=["misspelt", "unknown choice", "impossible together", "not TOML"],
)
def test_a_wrong_recipe_is_refused_with_place_and_value(
    tmp_path: Path, text: str, message: str
) -> None:
    (tmp_path / "recipe.toml").write_text(text)
    with pytest.raises(RecipeError, match=message):
        read_recipe(tmp_path / "recipe.toml")


@pytest.mark.parametrize("path", sorted(Path("recipes").glob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_is_valid(path: Path) -> None:
    assert read_recipe(path).name == path.stem
