"""The benchmarks of training's cost and of warm starts measure what they say."""

import numpy as np
import pytest

from bench import training_cost
from bench.training_cost import NEIGHBOURS
from bench.warm_start import until
from model.clicks.histories import Histories
from model.training.recipe import Recipe
from model.training.train import TrainingResult
from tests.small import of


def test_half_of_the_made_up_clicks_go_on_to_a_neighbour() -> None:
    log = training_cost._log(200, 10_000, part=1.0, length=50)
    items = log.items.reshape(200, 50).astype(np.int64)
    step = (items[:, 1:] - items[:, :-1]) % 10_000
    assert 0.48 < np.mean((step >= 1) & (step <= NEIGHBOURS)) < 0.62
    assert items.max() < log.n_items


def test_the_cost_of_training_is_measured_and_a_trial_keeps_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[Recipe] = []
    train = training_cost._trained

    def one_epoch(recipe: Recipe, log: Histories) -> TrainingResult:
        trained.append(recipe)
        return train(training_cost._changed(recipe, epochs=1), log)

    monkeypatch.setattr(training_cost, "_trained", one_epoch)
    monkeypatch.setattr(training_cost, "STEP_ITEMS", (50, 100))
    monkeypatch.setattr(training_cost, "VALIDATION_ITEMS", (60, 70))
    training_cost.training_cost(rounds=1, part=0.001)
    assert [recipe.training.negatives > 0 for recipe in trained] == [True, True, *[False] * 3]
    assert "a step of 100 / 50 items" in capsys.readouterr().out


def test_yesterday_knows_the_first_clicks_and_their_items() -> None:
    found = of([0, 1], [2, 3], [1])
    times = np.array([1, 4, 2, 5, 3])
    log = Histories(found.user_ids, found.item_ids, found.items, found.offsets, {"time": times})
    old = until(log, 0.5)
    assert [[old.item_ids[row] for row in old[user]] for user in range(3)] == [[0], [2], [1]]
    assert old.n_items == 3
