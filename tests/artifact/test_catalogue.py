"""The rows of item ids: the same from files as from a dict, also where keys collide."""

import shutil
import tempfile
import zlib
from array import array
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from persona.artifact import Artifact, ArtifactError, open_artifact
from persona.artifact.catalogue import (
    UNKNOWN_ITEM,
    CatalogueInFiles,
    CatalogueInMemory,
    ItemsByRow,
    open_catalogue,
    rows_of,
    write_catalogue,
)
from persona.artifact.format import ITEM_KEY_STARTS, ITEM_KEYS, ITEM_SLOTS
from persona.artifact.writing import write_manifest
from persona.contract import Embeddings, ItemId, Query
from persona.engine import Engine
from tests.artifact.test_artifact import flip_a_byte
from tests.conftest import TINY_ITEMS

FILES = [ITEM_KEY_STARTS, ITEM_KEYS, ITEM_SLOTS]
# With surrogates, which have no UTF-8, and with texts of integers; few, so that they meet.
texts = st.text(st.characters(), max_size=6) | st.integers(-3, 12).map(str)
item_ids = texts | st.integers() | st.integers(-3, 12)
catalogues = st.lists(item_ids, min_size=1, max_size=60, unique_by=lambda item: (type(item), item))


def in_files(item_ids: list[ItemId]) -> CatalogueInFiles:
    with tempfile.TemporaryDirectory() as folder:
        write_catalogue(item_ids, Path(folder))
        return CatalogueInFiles(Path(folder))  # a mapped file stays when its name goes


@given(known=catalogues, asked=st.lists(item_ids, max_size=30), data=st.data())
@settings(deadline=None)
def test_files_and_dict_find_the_same_rows(
    known: list[ItemId], asked: list[ItemId], data: st.DataObject
) -> None:
    asked = data.draw(st.permutations(known)) + asked
    assert in_files(known).rows(asked) == CatalogueInMemory(known).rows(asked)


@given(known=catalogues)
@settings(deadline=None)
def test_files_and_dict_find_the_item_of_every_row(known: list[ItemId]) -> None:
    for catalogue in (in_files(known), CatalogueInMemory(known)):
        found = catalogue.ids(range(len(known)))
        assert [(type(item), item) for item in found] == [(type(item), item) for item in known]


@given(known=catalogues, data=st.data())
@settings(deadline=None)
def test_items_by_row_are_the_items_of_the_rows(known: list[ItemId], data: st.DataObject) -> None:
    rows = data.draw(st.lists(st.integers(0, len(known)), max_size=20))
    for catalogue in (in_files(known), CatalogueInMemory(known)):
        items = ItemsByRow(catalogue, array("q", rows))
        assert list(items) == [*map([*known, UNKNOWN_ITEM].__getitem__, rows)]
        assert list(items[3:]) == list(items)[3:]
        assert rows_of(catalogue, items) == array("q", rows)


def test_rows_of_another_catalogue_are_looked_up_by_their_items() -> None:
    here, there = CatalogueInMemory(["a", "b"]), CatalogueInMemory(["b", "c"])
    assert list(rows_of(there, ItemsByRow(here, array("q", [0, 1, 2])))) == [2, 0, 2]


@pytest.mark.parametrize("known", [["plumless", "other"], ["buckeroo", "plumless"]])
def test_an_id_with_the_checksum_of_another_is_not_that_one(known: list[ItemId]) -> None:
    assert zlib.crc32(b"plumless\xfe") == zlib.crc32(b"buckeroo\xfe")
    asked: list[ItemId] = ["buckeroo", "plumless", "neither"]
    assert in_files(known).rows(asked) == CatalogueInMemory(known).rows(asked)


def test_an_id_that_begins_as_another_is_not_that_one() -> None:
    found = in_files(["abc", "ab", ""]).rows(["a", "ab", "abc", "abcd", ""])
    assert found.tolist() == [3, 1, 0, 3, 2]


def test_an_integer_is_not_its_text() -> None:
    known: list[ItemId] = [7, "8"]
    for catalogue in (in_files(known), CatalogueInMemory(known)):
        assert catalogue.rows([7, "7", 8, "8"]).tolist() == [0, 2, 2, 1]


def test_the_files_are_the_same_whatever_process_writes_them(tmp_path: Path) -> None:
    write_catalogue(["a", 7, "ü"], tmp_path)
    assert (tmp_path / ITEM_KEYS).read_bytes() == b"a\xfe\xff7\xfe\xc3\xbc\xfe"
    assert np.load(tmp_path / ITEM_KEY_STARTS).tolist() == [0, 2, 5]
    assert np.load(tmp_path / ITEM_SLOTS).tolist() == [2, 3, 3, 3, 1, 3, 0]  # ü wants 6, the first


@pytest.fixture(scope="module")
def indexed(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact as one of a large catalogue is, though its catalogue is small."""
    folder = tmp_path_factory.mktemp("indexed") / "tiny" / "1"
    shutil.copytree(tiny_artifact, folder)
    write_catalogue(TINY_ITEMS, folder)
    write_manifest(folder, open_artifact(tiny_artifact).manifest)
    return folder


def test_a_large_catalogue_is_opened_from_its_files(indexed: Path) -> None:
    catalogue = open_catalogue(open_artifact(indexed))
    assert isinstance(catalogue, CatalogueInFiles)
    rows = catalogue.rows([*TINY_ITEMS, "never seen"])
    assert rows.tolist() == list(range(len(TINY_ITEMS) + 1))


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_of_the_files_is_found(indexed: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=name):
        open_artifact(flip_a_byte(indexed, tmp_path, name))


@pytest.mark.parametrize("name", [ITEM_KEY_STARTS, ITEM_KEYS])
def test_a_missing_part_of_the_table_is_named(indexed: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(indexed, tmp_path / "tiny" / "1")
    (folder / name).unlink()
    write_manifest(folder, open_artifact(indexed).manifest)
    with pytest.raises(ArtifactError, match=f"{name}: missing beside {ITEM_SLOTS}"):
        open_catalogue(open_artifact(folder))


def test_a_malformed_table_is_named(indexed: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(indexed, tmp_path / "tiny" / "1")
    (folder / ITEM_SLOTS).write_bytes(b"no table")
    write_manifest(folder, open_artifact(indexed).manifest)
    with pytest.raises(ArtifactError, match=ITEM_SLOTS):
        open_catalogue(open_artifact(folder))


def test_the_engine_answers_the_same_from_files_and_dict(
    indexed: Path, tiny_artifact: Path
) -> None:
    query = Query({"item_id": [[*TINY_ITEMS[3:9], "never seen"]]}, Embeddings("pooled"))
    one, other = (
        Engine.open(folder).run(query).histories[0] for folder in (indexed, tiny_artifact)
    )
    assert one.unknown == other.unknown == 1
    np.testing.assert_array_equal(one.embedding, other.embedding)
    np.testing.assert_array_equal(one.pooled_attention, other.pooled_attention)


def test_opening_a_large_catalogue_leaves_its_list_of_ids_on_disk(indexed: Path) -> None:
    artifact = open_artifact(indexed)
    open_catalogue(artifact)
    assert "item_ids" not in vars(artifact)
    assert artifact.item_ids == TINY_ITEMS


@pytest.mark.parametrize("name", [ITEM_KEY_STARTS, "item_ids.json"])
def test_another_number_of_items_than_the_manifest_says_is_refused(
    indexed: Path, tiny_artifact: Path, name: str
) -> None:
    good = open_artifact(indexed if name in FILES else tiny_artifact)
    manifest = good.manifest.model_copy(update={"n_items": len(TINY_ITEMS) + 1})
    with pytest.raises(ArtifactError, match=rf"{name}: 20 .*, the manifest says 21"):
        open_catalogue(Artifact(good.folder, manifest, good.golden))
