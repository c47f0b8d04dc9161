"""The benchmark of cold items holds out what it says, and ranks as it says."""

from pathlib import Path

import numpy as np
import pytest

from bench.cold_items import AnyOrder, ColdAlone, ColdItems, held_out
from model.training.recipe import DataRecipe, Recipe
from tests.small import walks, write_walks


@pytest.fixture
def held(tmp_path: Path) -> ColdItems:
    """The walks, of whose ten items one of three is held out."""
    recipe = Recipe(name="walk", data=DataRecipe(format="sasrec"))
    return held_out(recipe, write_walks(tmp_path / "walks.txt"), {"2", "3", "5"}, seed=0)


def test_training_has_all_clicks_but_those_on_the_cold_item(held: ColdItems) -> None:
    (cold,) = held.item_ids[held.n_warm :]
    assert cold in {2, 3, 5}
    trained = held.train.train
    for user in range(len(walks())):
        before = [held.item_ids[row] for row in held.known[user].tolist()]
        now = [trained.item_ids[row] for row in trained[user].tolist()]
        assert now == [item for item in before if item != cold]
    assert (held.train.validation.targets < held.n_warm).all()


def test_the_test_has_every_target_and_every_click_before_it(held: ColdItems) -> None:
    cases = held.test
    assert len(cases.targets) == sum(walks().lengths >= 3)
    users = [int(user) - 1 for user in cases.histories.user_ids]
    for case, user in enumerate(users):
        rows = [*cases.histories[case].tolist(), int(cases.targets[case])]
        assert [held.item_ids[row] for row in rows] == [item + 1 for item in walks()[user]]


def test_without_features_the_cold_item_is_unknown(held: ColdItems) -> None:
    cases = held.as_without()
    assert len(cases.targets) == sum(~held.is_cold)
    assert cases.histories.n_items == held.n_warm == cases.histories.items.max()


def test_among_the_cold_items_all_others_come_last(held: ColdItems) -> None:
    scores = ColdAlone(AnyOrder(10, seed=0), held.n_warm).scores(held.test.histories)
    assert (np.argmax(scores, axis=1) >= held.n_warm).all()
