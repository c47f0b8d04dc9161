"""The default recipe: rules that follow the clicks."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from model.clicks.histories import Histories
from model.training.default_recipe import default_recipe, repeat_share
from model.training.run import read_run_recipe
from persona.cli.app import app
from tests.small import of, write_walks


def clicks(users: int, length: int, n_items: int) -> Histories:
    items = np.arange(users * length, dtype=np.int32) % n_items
    offsets = np.arange(users + 1) * length
    return Histories(list(range(users)), list(range(n_items)), items, offsets)


@pytest.mark.parametrize(("length", "expected"), [(3, 20), (42, 50), (500, 200)])
def test_max_length_follows_the_histories(length: int, expected: int) -> None:
    assert default_recipe(clicks(50, length, 1000)).encoder.max_length == expected


@pytest.mark.parametrize(("n_items", "expected"), [(1000, 0.3), (33, 0.1), (1, 0.0)])
def test_rare_items_are_trained_with_more_dropout(n_items: int, expected: float) -> None:
    assert default_recipe(clicks(500, 20, n_items)).encoder.dropout == expected


def test_a_catalogue_too_large_to_score_whole_is_sampled() -> None:
    assert default_recipe(clicks(10, 10, 50_000)).training.negatives == 0
    assert default_recipe(clicks(10, 10, 50_001)).training.negatives > 0


def test_validation_ranks_fewer_cases_where_ranking_is_dear_and_steps_are_cheap() -> None:
    sizes = (50_000, 50_001, 500_000)
    cases = [default_recipe(clicks(40_000, 15, n)).training.validation_cases for n in sizes]
    assert 20_000 == cases[0] > cases[1] > cases[2] == 1_000


def test_a_log_of_600_000_clicks_on_5_000_items_ends_within_half_an_hour() -> None:
    assert default_recipe(clicks(4_000, 150, 5_000)).training.minutes == 25
    assert default_recipe(clicks(100, 15, 5_000)).training.minutes == 25


@pytest.mark.parametrize(("users", "n_items"), [(8_000, 5_000), (4_000, 50_000)])
def test_more_work_gets_more_time(users: int, n_items: int) -> None:
    assert default_recipe(clicks(users, 150, n_items)).training.minutes >= 50


def test_large_catalogues_get_wide_embeddings() -> None:
    widths = [default_recipe(clicks(10, 10, n)).encoder.width for n in (17, 1000, 1001)]
    assert widths == [64, 64, 128]


@pytest.mark.parametrize("users", [1, 100, 30_000])
def test_runs_have_some_thousand_steps_and_an_end(users: int) -> None:
    training = default_recipe(clicks(users, 40, 100)).training
    assert 6 <= training.epochs <= 60
    assert 1024 <= training.max_batch_tokens <= 8192


def test_seen_items_are_ranked_only_where_people_return_to_them() -> None:
    assert repeat_share(of([0, 1, 0, 1], [2])) == pytest.approx(2 / 5)
    assert not default_recipe(of([0, 1, 0], [1])).data.remove_seen
    assert default_recipe(of([0, 1, 2], [1, 3])).data.remove_seen


@pytest.mark.slow
def test_a_run_without_a_recipe_keeps_the_derived_one(tmp_path: Path) -> None:
    data, run = write_walks(tmp_path / "walks.txt"), tmp_path / "run"
    arguments = ["train", "--data", f"{data}", "--output", f"{run}", "--no-progress"]
    assert CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code == 0
    recipe = read_run_recipe(run)
    assert recipe.name == "default"
    assert recipe.encoder.max_length == 20
