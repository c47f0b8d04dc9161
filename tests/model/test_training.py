"""Training runs: they learn, resume after SIGKILL and Ctrl-C, and refuse what cannot work."""

import csv
import json
import math
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from model.clicks.histories import held_out_users
from model.clicks.readers import read_clicks
from model.errors import RecipeError
from model.network.config import EncoderConfig
from model.training.averaging import kept_share
from model.training.interrupt import Interrupt
from model.training.recipe import Recipe, TrainingRecipe
from model.training.train import TrainingResult, load_encoder, train_encoder
from model.training.windows import LengthGroupedBatches, Windows
from persona.cli.app import main
from tests.small import walks, write_walks

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
patience = 1000
seed = 3
warmup_steps = 5
learning_rate = 5e-3
max_batch = 16
averaging = 0.9
"""
ENCODER = EncoderConfig(width=16, max_length=6)


def command(folder: Path, run: str, recipe: str = RECIPE) -> list[str]:
    """The arguments of `persona` that train the walks into a run."""
    path, data = folder / "walk.toml", write_walks(folder / "walks.txt")
    path.write_text(recipe)
    options = ["--recipe", f"{path}", "--data", f"{data}", "--output", f"{folder / run}"]
    return ["train", *options, "--no-progress"]


def persona(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> int | str | None:
    """Runs the command line in this process; its exit status."""
    monkeypatch.setattr(sys, "argv", ["persona", *arguments])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


def stopped(arguments: list[str], run: Path, number: signal.Signals) -> tuple[int, str]:
    """Exit status and output of a process that gets a signal after its first checkpoint."""
    with subprocess.Popen(
        [sys.executable, "-m", "persona", *arguments],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        while not (run / "checkpoints" / "last.ckpt").exists():
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(number)
        output, _ = process.communicate()
    return process.returncode, output


def trained(run: Path, *, progress: bool = False, **training: object) -> TrainingResult:
    """A run of two epochs on the walks."""
    choices = TrainingRecipe.model_validate({"epochs": 2, "max_batch": 16} | training)
    recipe = Recipe(name="walk", encoder=ENCODER, training=choices)
    return train_encoder(recipe, held_out_users(walks(), 0.2, seed=0), run, progress=progress)


def test_the_mean_of_weights_forgets_the_first_ones_within_a_short_run() -> None:
    assert 100 * math.prod(kept_share(0.998, step) for step in range(1, 100)) < 1e-3


def test_the_mean_of_weights_never_forgets_faster_than_its_decay() -> None:
    assert kept_share(0.998, 1_000_000) == 0.998


def test_training_learns_an_easy_walk(tmp_path: Path) -> None:
    result = trained(tmp_path, epochs=12, learning_rate=1e-2, warmup_steps=5)
    assert result.best > 0.9


@pytest.mark.slow
def test_two_processes_train_one_run(tmp_path: Path) -> None:
    program = str(Path(sys.executable).with_name("persona"))
    done = subprocess.run(
        [program, *command(tmp_path, "run"), "--devices", "2"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("best validation") == 1  # the second process prints nothing
    facts = json.loads((tmp_path / "run" / "training.json").read_text())
    assert facts["epochs"] == 6
    assert facts["best"] > 0.5
    (curves,) = (tmp_path / "run" / "curves").iterdir()
    with (curves / "metrics.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file) if row["loss"]]
    train = held_out_users(read_clicks(tmp_path / "walks.txt")[0], 0.2, seed=0).train
    whole = len(LengthGroupedBatches(Windows(train, 6), 16_384, 16, seed=0))
    assert steps[-1] + 1 == 6 * math.ceil(whole / 2)


@pytest.mark.parametrize("more", ["", "negatives = 4\n"], ids=["whole catalogue", "negatives"])
def test_a_run_killed_by_sigkill_ends_as_an_unbroken_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: str
) -> None:
    broken = command(tmp_path, "broken", RECIPE + more)
    status, _ = stopped(broken, tmp_path / "broken", signal.SIGKILL)
    assert status == -signal.SIGKILL
    assert not (tmp_path / "broken" / "training.json").exists()
    assert persona(broken, monkeypatch) == 0
    assert persona(command(tmp_path, "unbroken", RECIPE + more), monkeypatch) == 0

    runs = [tmp_path / "broken", tmp_path / "unbroken"]
    results = [json.loads((run / "training.json").read_text()) for run in runs]
    for result in results:
        for name in (
            "seconds",
            "total_seconds",
            "validation_seconds",
            "step_seconds",
            "clicks_per_second",
            "peak_memory_megabytes",
        ):
            del result[name]
    assert results[0] == results[1]
    encoders = [load_encoder(ENCODER, 10, run) for run in runs]
    for one, other in zip(*(encoder.parameters() for encoder in encoders), strict=True):
        torch.testing.assert_close(one, other, atol=0, rtol=0)


def test_ctrl_c_ends_with_one_line_that_says_how_to_go_on(tmp_path: Path) -> None:
    endless = RECIPE.replace("epochs = 6", "epochs = 100000")
    arguments = command(tmp_path, "run", endless)
    status, output = stopped(arguments, tmp_path / "run", signal.SIGINT)
    assert status == 130
    counts, *rest = output.splitlines()
    assert counts.startswith("walks.txt: 120 users, 10 items")
    assert rest == ["persona: interrupted; the same command resumes the run"]


def test_a_ctrl_c_that_was_dropped_ends_the_training_before_the_next_batch() -> None:
    before, interrupt = signal.getsignal(signal.SIGINT), Interrupt()
    interrupt.on_train_start()
    interrupt.on_train_batch_start()
    with suppress(KeyboardInterrupt):  # as in a destructor
        signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        interrupt.on_train_batch_start()
    interrupt.on_train_end()
    assert signal.getsignal(signal.SIGINT) is before


def test_one_click_is_refused_before_a_run_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = command(tmp_path, "run")
    (tmp_path / "walks.txt").write_text("1 1\n")
    assert persona(arguments, monkeypatch) == 1
    assert "persona: nothing to learn: all clicks are on the same item" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"diverged in epoch 1: .* learning_rate below 1e"):
        trained(tmp_path, learning_rate=1e30)


def test_a_finished_run_that_was_moved_keeps_its_best_figure(tmp_path: Path) -> None:
    first = trained(tmp_path / "a")
    (tmp_path / "a").rename(tmp_path / "b")
    with pytest.warns(UserWarning, match="The dirpath has changed"):
        again = trained(tmp_path / "b")
    assert (again.best, again.best_epoch) == (first.best, first.best_epoch)


def test_the_progress_shows_the_loss_in_the_first_epoch_and_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    trained(tmp_path, progress=True)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
    assert re.search(r"epoch 1 of 2 .* loss \d\.\d+ +NDCG@10 \.\.\. .* left", shown)
    assert re.search(r"epoch 2 of 2 .* loss \d\.\d+ +NDCG@10 0\.\d+ 0:00:00 left", shown)


def test_where_there_is_no_terminal_a_line_in_the_first_minute_says_the_time_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("model.training.progress.FIRST_LINE_SECONDS", 0)
    trained(tmp_path, progress=True)
    shown = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"epoch 1 of 2, loss \d\.\d+, NDCG@10 \.\.\., 0:00:\d\d left", shown[0])
    assert len(shown) == 1


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_a_run_ends_in_time_with_a_checkpoint_and_stays_ended(
    tmp_path: Path, schedule: str
) -> None:
    def call() -> TrainingResult:
        endless = {"epochs": 10**6, "patience": 10**6, "minutes": 0.02}
        return trained(tmp_path, progress=False, schedule=schedule, averaging=0.9, **endless)

    first = call()
    assert 1 <= first.best_epoch <= first.epochs < 10**6
    assert call().epochs <= first.epochs + 1


def test_a_time_shorter_than_an_epoch_still_ends_with_a_checkpoint(tmp_path: Path) -> None:
    assert trained(tmp_path, minutes=1e-9, max_batch=1).best_epoch == 1
    (curves,) = (tmp_path / "curves").iterdir()
    with (curves / "metrics.csv").open() as file:
        assert max(int(row["step"]) for row in csv.DictReader(file)) == 0
    load_encoder(ENCODER, 10, tmp_path)


def test_a_run_without_a_checkpoint_says_how_to_go_on(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no checkpoint yet; .* same `persona train` command"):
        load_encoder(ENCODER, 10, tmp_path)
