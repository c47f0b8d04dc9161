"""The rows of item ids: from files the same as from a dict, and where a key collides too."""

import sys
import tempfile
import zlib
from array import array
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from export.write import Description, write_artifact
from service.artifact import Artifact, ItemId, open_artifact
from service.bulk_lookup import BulkRows
from service.catalogue import RowsInFiles, RowsInMemory, open_rows, write_rows
from service.errors import ArtifactError, InvalidRequest
from service.histories import ItemIndex, MappedHistory, UnknownItems
from service.row_table import RowTable, Unfit
from tests.conftest import TINY, TINY_ITEMS, random_encoder
from tests.serving import serving
from tests.test_artifact import FILES, flip_a_byte

INDEX = ["item_key_starts.npy", "item_keys.bin", "item_slots.npy"]
# With surrogates, which have no UTF-8, and with texts of integers; few, so that they meet.
texts = st.text(st.characters(), max_size=6) | st.integers(-3, 12).map(str)
small = st.integers(-3, 12)
item_ids = texts | st.integers() | small
catalogues = st.lists(item_ids, min_size=1, max_size=60, unique_by=lambda item: (type(item), item))


def in_files(item_ids: list[ItemId]) -> RowsInFiles:
    with tempfile.TemporaryDirectory() as folder:
        write_rows(item_ids, Path(folder))
        return RowsInFiles(Path(folder))  # a mapped file stays when its name goes


@given(known=catalogues, asked=st.lists(item_ids, max_size=30), data=st.data())
@settings(deadline=None)
def test_files_and_dict_find_the_same_rows(
    known: list[ItemId], asked: list[ItemId], data: st.DataObject
) -> None:
    asked = data.draw(st.permutations(known)) + asked
    assert in_files(known).find(asked) == RowsInMemory(known).find(asked)


@given(
    known=catalogues,
    asked=st.lists(item_ids, max_size=30),
    max_length=st.integers(1, 9),
    data=st.data(),
)
@settings(deadline=None)
def test_histories_and_candidates_map_the_same_by_files_and_dict(
    known: list[ItemId], asked: list[ItemId], max_length: int, data: st.DataObject
) -> None:
    history = data.draw(st.permutations(asked + known[:5]))
    indexes = [ItemIndex(rows, max_length) for rows in (in_files(known), RowsInMemory(known))]
    answers = [
        [
            mapped(index, history, "token"),
            mapped(index, history, "drop"),
            refusal_or_rows(index, history),
        ]
        for index in indexes
    ]
    assert answers[0] == answers[1]


def mapped(index: ItemIndex, history: list[ItemId], unknown: UnknownItems) -> MappedHistory:
    histories = index.map_histories([history], unknown, lambda number: ("histories", number))
    index.find_rows(histories)
    return histories[0]


def refusal_or_rows(index: ItemIndex, items: list[ItemId]) -> object:
    try:
        return mapped(index, items, "error").rows, index.map_candidates(items, ("candidates",))
    except InvalidRequest as error:
        return error.message, error.path


strings = st.text(st.sampled_from("aä€𐍈"), max_size=22)  # of 1 to 4 bytes a character
integers = st.integers(-(2**63), 2**63 - 1) | small


@given(
    known=catalogues
    | st.lists(texts, min_size=1, max_size=60, unique=True)
    | st.lists(strings, min_size=1, max_size=40, unique=True)
    | st.lists(integers, min_size=1, max_size=60, unique=True),
    asked=st.lists(st.lists(item_ids | strings, max_size=9) | st.lists(strings), max_size=8),
    data=st.data(),
)
@pytest.mark.parametrize("thousands", [1, 2**63])
@settings(deadline=None)
def test_many_at_once_have_the_rows_that_each_has(
    known: list[ItemId], asked: list[list[ItemId]], data: st.DataObject, thousands: int
) -> None:
    histories = [data.draw(st.permutations(known)), *asked]
    each = list(map(in_files(known).find, histories))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("service.catalogue.MANY", 1)
        patch.setattr("service.catalogue.THOUSANDS", thousands)
        found = RowsInMemory(known).find_all(histories)
    assert found == [(rows, rows.count(len(known))) for rows in each]


@pytest.mark.parametrize("known", [["a", 1], ["a\0b"], ["a" * 65]], ids=["integer", "NUL", "long"])
def test_catalogues_that_bulk_has_no_place_for_are_searched_all_the_same(
    known: list[ItemId],
) -> None:
    with pytest.raises(Unfit):
        BulkRows(known)
    histories = [[*known, "never seen"]] * 1500
    found = RowsInMemory(known).find_all(histories)
    assert found == [(array("q", range(len(known) + 1)), 1)] * 1500


@pytest.mark.parametrize(
    "known", [range(5, 105), range(0, 2**40, 2**33), list(map(str, range(100)))]
)
def test_ids_are_found_though_some_share_a_slot(known: Iterable[ItemId]) -> None:
    rows = {item_id: row for row, item_id in enumerate(known)}
    assert RowTable(rows).find([*reversed(rows)]).tolist() == [*reversed(range(len(rows)))]


def test_empty_histories_have_no_rows() -> None:
    assert RowsInMemory(["a"]).find_all([[], []]) == [(array("q"), 0), (array("q"), 0)]
    assert RowsInMemory(["a"]).find_all([]) == []


def test_an_integer_that_differs_by_the_modulus_of_hashes_is_another() -> None:
    modulus = sys.hash_info.modulus
    assert hash(modulus + 7) == hash(7)
    rows: dict[ItemId, int] = dict.fromkeys(range(8), 0)
    with pytest.raises(KeyError):
        RowTable(rows).find([modulus + 7])


@pytest.mark.parametrize("known", [["a", 1], ["a", ""]])
def test_catalogues_whose_ids_a_hash_does_not_tell_apart_have_no_table(
    known: list[ItemId],
) -> None:
    with pytest.raises(Unfit):
        RowTable({item_id: row for row, item_id in enumerate(known)})


@pytest.mark.parametrize(
    ("known", "strange"),
    [("item", 7), ("item", "a\0b"), ("item", "b" * 65), ("item", "\ud800"), (0, "7"), (0, -1)],
)
def test_strange_ids_among_thousands_are_just_unknown(known: ItemId, strange: ItemId) -> None:
    ids: list[ItemId] = [f"item {row}" if known else row for row in range(3000)]
    found = RowsInMemory(ids).find_all([ids, [], [strange, ids[7]], [ids[2999]]])
    assert [rows.tolist() for rows, _ in found] == [list(range(3000)), [], [3000, 7], [2999]]
    assert [unknown for _, unknown in found] == [0, 0, 1, 0]


@pytest.mark.parametrize("known", [["plumless", "other"], ["buckeroo", "plumless"]])
def test_an_id_with_the_checksum_of_another_is_not_that_one(known: list[ItemId]) -> None:
    assert zlib.crc32(b"plumless\xfe") == zlib.crc32(b"buckeroo\xfe")
    asked: list[ItemId] = ["buckeroo", "plumless", "neither"]
    assert in_files(known).find(asked) == RowsInMemory(known).find(asked)


def test_an_id_that_begins_as_another_is_not_that_one() -> None:
    found = in_files(["abc", "ab", ""]).find(["a", "ab", "abc", "abcd", ""])
    assert found.tolist() == [3, 1, 0, 3, 2]


def test_the_files_are_the_same_whatever_process_writes_them(tmp_path: Path) -> None:
    write_rows(["a", 7, "ü"], tmp_path)
    assert (tmp_path / "item_keys.bin").read_bytes() == b"a\xfe\xff7\xfe\xc3\xbc\xfe"
    assert np.load(tmp_path / "item_key_starts.npy").tolist() == [0, 2, 5]
    assert np.load(tmp_path / "item_slots.npy").tolist() == [2, 3, 3, 3, 1, 3, 0]  # ü: 6, taken


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an artifact as one of a large catalogue is, though its catalogue is small."""
    root = tmp_path_factory.mktemp("indexed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.write.LARGE_CATALOGUE", len(TINY_ITEMS) - 1)
        encoder = random_encoder(TINY, len(TINY_ITEMS))
        return write_artifact(encoder, TINY_ITEMS, Description("tiny"), root)


def test_a_large_catalogue_carries_its_rows_in_files(indexed: Path) -> None:
    assert sorted(path.name for path in indexed.iterdir()) == sorted(FILES + INDEX)
    rows = open_rows(open_artifact(indexed))
    assert isinstance(rows, RowsInFiles)
    assert list(rows.find([*TINY_ITEMS, "never seen"])) == list(range(len(TINY_ITEMS) + 1))


@pytest.mark.parametrize("name", INDEX)
def test_one_flipped_byte_of_the_rows_is_found(indexed: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(ArtifactError, match=name):
        open_artifact(flip_a_byte(indexed, tmp_path, name))


def test_the_service_answers_the_same_from_files_and_dict(
    indexed: Path, tiny_artifacts: Path
) -> None:
    history = [*TINY_ITEMS[3:9], "never seen"]
    answers = []
    for root in (indexed.parents[1], tiny_artifacts):
        with serving(root) as client:
            answers.append(client.post("/v1/encode", json={"histories": [history]}).json())
    assert answers[0] == answers[1]


def test_opening_a_large_catalogue_leaves_its_list_of_ids_on_disk(indexed: Path) -> None:
    artifact = open_artifact(indexed)
    open_rows(artifact)
    assert "item_ids" not in vars(artifact)
    assert artifact.item_ids == TINY_ITEMS


@pytest.mark.parametrize("name", ["item_key_starts.npy", "item_ids.json"])
def test_another_number_of_items_than_the_manifest_says_is_refused(
    indexed: Path, tiny_artifact: Path, name: str
) -> None:
    good = open_artifact(indexed if name in INDEX else tiny_artifact)
    manifest = good.manifest.model_copy(update={"n_items": len(TINY_ITEMS) + 1})
    with pytest.raises(ArtifactError, match=rf"{name}: 20 .*, the manifest says 21"):
        open_rows(Artifact(good.folder, manifest, good.golden))
