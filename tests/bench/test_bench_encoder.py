"""The benchmarks of training keep, go on with, rank and compare runs as they say they do."""

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench import ablations, quality, times
from bench.rectools import SAME, SHIPPED, THEIRS, our_epoch, ratio, same_sizes
from bench.trained import CALLS, Trained, seeded, trained
from bench.trainers.job import Job, load_split, newest, save_split
from model.clicks.histories import leave_one_out
from model.training.run import TRAINING
from tests.small import of

RECIPE = """
name = "walk"
[data]
format = "sasrec"
remove_seen = true
[encoder]
width = 16
max_length = 6
[training]
epochs = 2
warmup_steps = 5
learning_rate = 5e-3
max_batch = 16
"""
ITEMS = 12


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A tiny recipe."""
    path = tmp_path / "walk.toml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Users who step from item i to i + 1."""
    rng = np.random.default_rng(0)
    rows = [(int(rng.integers(ITEMS)), int(rng.integers(4, 10))) for _ in range(60)]
    lines = [
        f"{user + 1} {(start + step) % ITEMS + 1}\n"
        for user, (start, length) in enumerate(rows)
        for step in range(length)
    ]
    path = tmp_path / "walks.txt"
    path.write_text("".join(lines))
    return path


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.encoders.CACHE", tmp_path / "cache")


def run_of(recipe: Path, data: Path, seed: int = 0) -> Trained:
    return trained(seeded(recipe, seed, None), data)


def test_a_finished_run_is_not_trained_again(recipe: Path, data: Path) -> None:
    first = run_of(recipe, data)
    written = (first.run / TRAINING).stat().st_mtime_ns
    assert run_of(recipe, data).run == first.run
    assert (first.run / TRAINING).stat().st_mtime_ns == written
    assert len(json.loads((first.run / CALLS).read_text())) == 1


def test_another_seed_or_recipe_is_another_run(recipe: Path, data: Path) -> None:
    runs = {run_of(recipe, data, seed).run for seed in (0, 1)}
    recipe.write_text(RECIPE.replace("5e-3", "4e-3"))
    runs.add(run_of(recipe, data).run)
    assert len(runs) == 3


def test_an_unfinished_run_goes_on_and_its_calls_are_summed(recipe: Path, data: Path) -> None:
    run = run_of(recipe, data).run
    (run / TRAINING).unlink()  # as if killed after the last checkpoint, 7 seconds in
    os.utime(run / "checkpoints" / "last.ckpt", (107.0, 107.0))
    (run / CALLS).write_text("[[100.0, 0.0]]")
    again = run_of(recipe, data)
    (start, end), (began, ended) = json.loads((run / CALLS).read_text())
    assert (start, end) == (100.0, 107.0)
    assert again.seconds == pytest.approx(7 + ended - began)
    assert again.epochs == 2


def test_minutes_to_the_best_epoch_are_its_share(recipe: Path, data: Path) -> None:
    run = run_of(recipe, data)
    assert run.minutes_to_best == pytest.approx(run.seconds / 60 * run.best_epoch / 2)


def test_the_served_artifact_ranks_like_the_run(recipe: Path, data: Path) -> None:
    run = run_of(recipe, data)
    ours, served = run.evaluate(), run.evaluate_served()
    assert len(ours.ranks) == len(served.ranks) == 60
    assert served.metrics["NDCG@10"] == pytest.approx(ours.metrics["NDCG@10"], abs=1e-3)


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> dict[str, float | Sequence[float]]:
    """What commands record, in place of results.json; serving, which takes an export, is above."""
    monkeypatch.setattr(Trained, "evaluate_served", Trained.evaluate)
    kept: dict[str, float | Sequence[float]] = {}
    monkeypatch.setattr(quality, "record", lambda name, value, *_: kept.update({name: value}))
    monkeypatch.setattr(quality, "record_table", lambda name, text: kept.update({name: text}))
    return kept


def test_ml1m_records_means_seeds_minutes_and_what_serving_changes(
    recipe: Path, data: Path, figures: dict[str, float | Sequence[float]]
) -> None:
    quality.ml1m(data=data, recipe=recipe, seeds=2)
    seeds = figures["ml1m_ndcg10_seeds"]
    assert isinstance(seeds, list)
    assert figures["ml1m_ndcg10"] == pytest.approx(sum(seeds) / 2, abs=1e-5)
    assert figures.keys() - {"ml1m_ndcg10", "ml1m_ndcg10_seeds"} == {
        "ml1m_hr10",
        "ml1m_minutes",
        "ml1m_served_ndcg10_difference",
        "encoder_ml1m",
    }


def test_wikispeedia_stands_beside_every_baseline(
    recipe: Path, data: Path, figures: dict[str, float | Sequence[float]]
) -> None:
    quality.wikispeedia(data=data, recipe=recipe, seeds=1)
    names = ("popularity", "repeat_last", "markov_1", "markov_2", "item_knn")
    values = [figures[f"wikispeedia_ndcg10_{name}"] for name in names]
    assert figures["wikispeedia_ndcg10_best_baseline"] in values
    assert "| item-knn |" in str(figures["encoder_wikispeedia"])


def test_ablations_change_one_choice_each() -> None:
    shown = seeded(quality.RECIPES / "ml-1m.toml", 0, None)
    runs = [ablations.changed(shown, change, 4) for change in ablations.CHANGES.values()]
    assert len({run.model_dump_json() for run in runs}) == len(runs)
    epochs = [run.training.epochs for run in runs if run.training.windows == "all"]
    assert epochs == [4] * (len(runs) - 1)


def test_ablations_stand_beside_the_recipe(
    recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: dict[str, str] = {}
    monkeypatch.setattr(ablations, "record_table", lambda name, text, _: kept.update({name: text}))
    monkeypatch.setattr(
        ablations, "CHANGES", {"nothing else": {}, "2 heads": {"encoder": {"heads": 2}}}
    )
    ablations.ablations(data=data, recipe=recipe, epochs=1)
    assert "| nothing else |" in kept["ablations"]
    assert "| 2 heads |" in kept["ablations"]


def test_a_part_of_the_data_leaves_no_figure(
    recipe: Path, data: Path, figures: dict[str, float | Sequence[float]]
) -> None:
    quality.msnbc_training(data=data, recipe=recipe, limit=200)
    assert not figures


def test_a_split_comes_back_from_its_file(tmp_path: Path) -> None:
    split = leave_one_out(of([0, 1, 2, 3], [1, 2], [3, 2, 1]))
    save_split(split, tmp_path / "split.npz")
    back = load_split(tmp_path / "split.npz")
    assert back.train.n_items == 4
    assert [back.test.histories[user].tolist() for user in range(2)] == [[0, 1, 2], [3, 2]]
    assert (back.validation.targets.tolist(), back.test.targets.tolist()) == ([2, 2], [3, 1])


def test_histories_are_cut_to_their_newest_clicks() -> None:
    cut = newest(of([0, 1, 2, 3], [], [2, 1]), 3)
    assert [cut[user].tolist() for user in range(3)] == [[1, 2, 3], [], [2, 1]]


def test_an_epoch_of_ours_follows_the_one_before(tmp_path: Path) -> None:
    rows = [[step % 4 for step in range(start, start + 6)] for start in range(40)]
    job = Job("", "", width=16, blocks=1, heads=1, max_length=4, dropout=0.1, batch=8)
    split = leave_one_out(of(*rows))
    for turn in range(2):
        assert our_epoch(same_sizes(job), split, tmp_path, turn) > 0
    assert len(list((tmp_path / "curves").iterdir())) == 2  # the second call went on


def test_both_contenders_have_the_same_sizes() -> None:
    job = Job("", "", width=48, blocks=3, heads=4, max_length=7, dropout=0.3, batch=8)
    ours = same_sizes(job)
    sizes = ours.encoder
    assert (sizes.width, sizes.blocks, sizes.heads, sizes.dropout) == (48, 3, 4, 0.3)
    assert (sizes.max_length, ours.training.max_batch) == (7, 8)


def test_the_ratio_is_of_medians_at_the_same_sizes() -> None:
    speeds = {THEIRS: [2.0, 1.0, 9.0], SAME: [3.0, 90.0, 3.0], SHIPPED: [1.0]}
    assert ratio(speeds) == 1.5


def test_times_stand_beside_ids_in_both_ways_of_asking(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clicks = tmp_path / "timed.csv"
    rows = [
        (user, (user + step) % ITEMS, 100 * step * user) for user in range(40) for step in range(6)
    ]
    lines = ["user,item,time", *(",".join(map(str, row)) for row in rows)]
    clicks.write_text("\n".join(lines) + "\n")
    recipe.write_text(
        RECIPE.replace('format = "sasrec"', "").replace("[training]", 'time = "gaps"\n[training]')
    )
    kept: dict[str, Any] = {}
    monkeypatch.setattr(times, "record", lambda name, value, *_: kept.update({name: value}))
    monkeypatch.setattr(times, "record_table", lambda name, text, _: kept.update({name: text}))
    times.times(data=clicks, recipe=recipe, seeds=2)
    for name in ("ids", "time_unknown", "time_known"):
        seeds = kept[f"ml100k_{name}_ndcg10_seeds"]
        assert kept[f"ml100k_{name}_ndcg10"] == pytest.approx(sum(seeds) / 2, abs=1e-5)
    assert kept["ml100k_time_known_ndcg10"] != kept["ml100k_time_unknown_ndcg10"]
    assert 0 <= kept["ml100k_time_known_ndcg10_p"] <= 1
    assert kept["encoder_times"].count("| gaps |") == 2
