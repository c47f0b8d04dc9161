"""New items without training: another version of the artifact that knows them."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from persona.artifact import open_artifact
from persona.artifact.format import ITEM_EMBEDDINGS, ITEM_IDS
from persona.artifact.graph_rows import with_rows
from persona.artifact.item_changes import ChangedItems, NewItem
from persona.artifact.writing import new_version
from persona.contract import InvalidRequest, ItemId
from persona.engine import Engine
from tests.conftest import FEATURES, TINY, TINY_ITEMS

RED = NewItem("new", {"colour": "red", "price": 15.0})


def changed(source: Path, root: Path, *items: NewItem, remove: tuple[ItemId, ...] = ()) -> Engine:
    """An engine over version 2 of an artifact."""
    artifact = open_artifact(source)
    changes = ChangedItems(artifact, items, remove)
    with new_version(root, artifact.manifest.name, "2") as folder:
        changes.write(folder, "2")
    return Engine.open(root)


@pytest.fixture(scope="session")
def shop(shop_artifacts: Path) -> Path:
    return shop_artifacts / "shop" / "1"


def test_a_new_item_is_the_projection_of_its_features(shop: Path, tmp_path: Path) -> None:
    changed(shop, tmp_path, RED)
    new = open_artifact(tmp_path / "shop" / "2")
    features = np.array([1, 0, 0, 1, 1, 1], np.float32)  # red, blue, others, price, known, always
    expected = features @ new.projection()
    np.testing.assert_allclose(new.item_embeddings()[20], expected, rtol=1e-6)
    assert not new.learned()[20].any()


def test_known_items_answer_as_before_and_new_ones_are_read(shop: Path, tmp_path: Path) -> None:
    before, after = Engine.open(shop), changed(shop, tmp_path, RED)
    histories = [["item 3", "item 19"], ["nowhere"], []]
    same = before.encode(histories).embeddings, after.encode(histories).embeddings
    np.testing.assert_array_equal(*same)
    new, unknown = after.encode([["new"], ["nowhere"]]).embeddings
    assert np.abs(new - unknown).max() > 0.01
    assert np.isfinite(after.score([["item 3"]], ["new"]).users[0].scores).all()


def test_a_new_item_is_recommended_and_marked_cold(shop: Path, tmp_path: Path) -> None:
    after = changed(shop, tmp_path, RED)
    (user,) = after.recommend([["item 3"]], k=21).users
    assert "new" in user.items
    assert user.cold == ["new"]
    (like,) = after.similar(["item 3"], k=20).items
    assert like.cold == ["new"]
    assert Engine.open(shop).recommend([["item 3"]], k=20).users[0].cold == []


def test_other_features_move_a_known_item_and_keep_what_it_learned(
    shop: Path, tmp_path: Path
) -> None:
    blue = NewItem("item 3", {"colour": ["blue"]})
    changed(shop, tmp_path, blue)
    new = open_artifact(tmp_path / "shop" / "2")
    expected = new.projection()[1] + new.projection()[-1] + new.learned()[3]
    np.testing.assert_allclose(new.item_embeddings()[3], expected, rtol=1e-5)
    assert new.changes.trained == len(TINY_ITEMS)


def test_a_vector_needs_no_features(tiny_artifact: Path, tmp_path: Path) -> None:
    vector = np.linspace(-1, 1, TINY.width)
    engine = changed(tiny_artifact, tmp_path, NewItem("new", vector=vector.tolist()))
    assert engine.recommend([["new"]], k=21).users[0].cold == ["new"]


def test_a_removed_item_is_hidden_and_histories_with_it_stay_readable(
    shop: Path, tmp_path: Path
) -> None:
    after = changed(shop, tmp_path, remove=("item 3",))
    user = after.recommend([["item 3"]], k=20).users[0]
    assert user.unknown == 0
    assert set(user.items) == set(TINY_ITEMS) - {"item 3"}
    assert "item 3" not in after.similar(["item 4"], k=20).items[0].items
    before = Engine.open(shop).encode([["item 3"]]).embeddings
    np.testing.assert_array_equal(after.encode([["item 3"]]).embeddings, before)


def test_a_hidden_item_is_shown_again_when_it_is_added_again(shop: Path, tmp_path: Path) -> None:
    hidden = tmp_path / "hidden"
    changed(shop, hidden, remove=("item 3",))
    again = NewItem("item 3", {"colour": "red"})
    after = changed(hidden / "shop" / "2", tmp_path / "again", again)
    assert "item 3" in after.recommend([[]], k=20).users[0].items


def test_the_id_of_an_unknown_golden_click_may_be_added(shop: Path, tmp_path: Path) -> None:
    after = changed(shop, tmp_path, NewItem("unknown item", {"price": 1}))
    assert after.encode([["unknown item"]]).users[0].unknown == 0


def test_a_graph_with_more_rows_is_what_onnx_would_write(shop: Path) -> None:
    model = onnx.load(shop / "embedding.onnx", load_external_data=False)
    raw = (shop / "embedding.onnx").read_bytes()
    assert with_rows(raw, ITEM_EMBEDDINGS, 21, TINY.width) == raw
    more = onnx.load_from_string(with_rows(raw, ITEM_EMBEDDINGS, 25, TINY.width))
    (table,) = (i for i in model.graph.initializer if list(i.dims) == [21, TINY.width])
    table.dims[0] = 25
    for entry in table.external_data:
        if entry.key == "length":
            entry.value = str(4 * 25 * TINY.width)
    assert more == model


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (NewItem("new", {"size": 3}), "item 'new': no feature 'size', only colour, price"),
        (NewItem("new", {"price": "low"}), "feature 'price' is 'low', expected a number"),
        (NewItem("new", {"colour": 1.5}), "feature 'colour' is 1.5, expected a text or a list"),
        (NewItem("new", {}), "item 'new': no feature and no vector"),
        (NewItem("new", vector=[1, 2]), "the vector has 2 numbers, expected 16 finite numbers"),
    ],
    ids=["unknown feature", "no number", "no text", "nothing", "another width"],
)
def test_an_item_that_cannot_be_used_is_named(shop: Path, item: NewItem, message: str) -> None:
    with pytest.raises(InvalidRequest, match=message):
        ChangedItems(open_artifact(shop), [item])


def test_an_unknown_item_cannot_be_removed(shop: Path) -> None:
    with pytest.raises(InvalidRequest, match="the model knows no item 'nowhere'"):
        ChangedItems(open_artifact(shop), [], ["nowhere"])


def test_an_artifact_without_features_lists_none(tiny_artifact: Path) -> None:
    assert open_artifact(tiny_artifact).features == []
    assert json.loads((tiny_artifact / ITEM_IDS).read_bytes()) == TINY_ITEMS


def test_the_features_come_back_as_they_were_written(shop: Path) -> None:
    assert tuple(open_artifact(shop).features) == FEATURES
