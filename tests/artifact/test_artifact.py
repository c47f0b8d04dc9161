"""The artifact: complete, self-contained, verified byte by byte, written whole or not at all."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.errors import ParityError
from export.parity import difference
from export.weights import ExternalWeights
from export.write import Description, write_artifact
from persona.artifact import ArtifactError, find_artifacts, open_artifact
from persona.artifact.format import GOLDEN, ITEM_EMBEDDINGS
from persona.artifact.writing import new_version, write_manifest
from persona.engine import Engine
from tests.conftest import TINY, TINY_ITEMS, random_encoder

FILES = [
    "README.md",
    "attention.onnx",
    "attention_full.onnx",
    "embedding.onnx",
    "embedding_first.onnx",
    "embedding_next.onnx",
    "golden.json",
    "item_embeddings.npy",
    "item_ids.json",
    "manifest.json",
    "manifest.sha256",
    "parity.json",
    "weights.bin",
]


def flip_a_byte(artifact: Path, place: Path, name: str) -> Path:
    """The folder of a copy in which one byte of the file `name` is another."""
    folder = shutil.copytree(artifact, place / "tiny" / "1")
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    return folder


def test_an_artifact_holds_these_files_and_no_others(tiny_artifact: Path) -> None:
    assert sorted(path.name for path in tiny_artifact.iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_is_found_and_the_file_named(
    tiny_artifact: Path, tmp_path: Path, name: str
) -> None:
    with pytest.raises(ArtifactError, match=name):
        open_artifact(flip_a_byte(tiny_artifact, tmp_path, name))


@pytest.mark.parametrize("name", ["embedding.onnx", "golden.json", "manifest.json"])
def test_a_missing_file_is_named(tiny_artifact: Path, tmp_path: Path, name: str) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")
    (folder / name).unlink()
    with pytest.raises(ArtifactError, match=f"{name}: missing"):
        open_artifact(folder)


def test_a_file_that_the_manifest_does_not_know_is_refused(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")
    (folder / "extra.bin").write_bytes(b"?")
    with pytest.raises(ArtifactError, match=r"extra\.bin"):
        open_artifact(folder)


def test_the_manifest_checksum_is_in_the_form_of_sha256sum(tiny_artifact: Path) -> None:
    command = ["sha256sum", "--check", "--status", "manifest.sha256"]
    assert subprocess.run(command, cwd=tiny_artifact, check=False).returncode == 0


def test_the_item_table_of_the_graphs_is_the_npy_file(tiny_artifact: Path) -> None:
    table = open_artifact(tiny_artifact).item_embeddings()
    assert table.shape == (len(TINY_ITEMS) + 1, TINY.width)
    for graph in ("embedding", "attention", "attention_full"):
        model = onnx.load(tiny_artifact / f"{graph}.onnx", load_external_data=False)
        places = [
            {entry.key: entry.value for entry in tensor.external_data}
            for tensor in model.graph.initializer
        ]
        (place,) = (p for p in places if p.get("location") == ITEM_EMBEDDINGS)
        content = (tiny_artifact / ITEM_EMBEDDINGS).read_bytes()[int(place["offset"]) :]
        np.testing.assert_array_equal(np.frombuffer(content, np.float32), table.ravel())


def test_nothing_in_the_artifact_names_a_path_of_the_machine_that_made_it(
    tiny_artifact: Path,
) -> None:
    here = os.fsencode(Path(__file__).parents[2])
    assert not [path.name for path in tiny_artifact.iterdir() if here in path.read_bytes()]


def test_the_parity_report_covers_one_by_one_the_maximum_and_both_sides(
    tiny_artifact: Path,
) -> None:
    cases = json.loads((tiny_artifact / "parity.json").read_text())["cases"]
    covered = {
        (case["graph"], case["batch"], case["length"], case["padding_side"]) for case in cases
    }
    for graph in ("embedding", "attention", "attention_full"):
        for side in ("left", "right"):
            assert {(graph, 1, 1, side), (graph, 16, TINY.max_length, side)} <= covered


def test_an_existing_version_is_never_overwritten(tiny_artifacts: Path) -> None:
    encoder = random_encoder(TINY, len(TINY_ITEMS))
    with pytest.raises(ArtifactError, match="choose another"):
        write_artifact(encoder, TINY_ITEMS, Description("tiny"), tiny_artifacts)


def test_a_failed_export_leaves_nothing_behind(tmp_path: Path) -> None:
    def fail() -> None:
        with new_version(tmp_path, "tiny", "1") as folder:
            (folder / "embedding.onnx").write_bytes(b"half an artifact")
            difference(np.zeros(1), np.ones(1))

    with pytest.raises(ParityError):
        fail()
    assert list((tmp_path / "tiny").iterdir()) == []


def test_equal_weights_are_stored_once(tmp_path: Path) -> None:
    table = np.zeros((3, 4), np.float32)
    same = np.arange(100, dtype=np.float32)
    initializers = [
        onnx.numpy_helper.from_array(array, name)
        for name, array in (("table", table), ("one", same), ("other", same))
    ]
    graph = onnx.helper.make_graph([], "two equal weights", [], [], initializers)
    with (tmp_path / "weights.bin").open("wb") as file:
        ExternalWeights(file, table, table.nbytes).move_out(onnx.helper.make_model(graph))
    assert (tmp_path / "weights.bin").stat().st_size == same.nbytes


def test_a_malformed_golden_file_is_named(tiny_artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")
    (folder / GOLDEN).write_text('{"tolerance": 1e-4}')
    write_manifest(folder, open_artifact(tiny_artifact).manifest)
    with pytest.raises(ArtifactError, match=r"golden\.json: pairs: Field required"):
        open_artifact(folder)


@pytest.mark.parametrize("name", ["golden.json", "item_ids.json", "weights.bin", "attention.onnx"])
def test_a_file_that_is_neither_there_nor_listed_is_named(
    tiny_artifact: Path, tmp_path: Path, name: str
) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")
    (folder / name).unlink()
    write_manifest(folder, open_artifact(tiny_artifact).manifest)
    with pytest.raises(ArtifactError, match=rf"manifest\.json: does not list the file {name}"):
        open_artifact(folder)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("item_ids.json", b"[1, ", "Invalid JSON"),
        ("item_ids.json", b"[true]", "Input should be a valid"),
        ("item_ids.json", b'["only one"]', "1 ids, the manifest says 20"),
        ("item_embeddings.npy", b"no array", "item_embeddings.npy: "),
    ],
    ids=["no JSON", "a truth value", "too few", "no array"],
)
def test_a_malformed_file_is_named_when_the_engine_reads_it(
    tiny_artifact: Path, tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")
    (folder / name).write_bytes(content)
    write_manifest(folder, open_artifact(tiny_artifact).manifest)
    with pytest.raises(ArtifactError, match=message) as refused:
        Engine.open(folder)
    assert str(folder / name) in str(refused.value)


@pytest.mark.parametrize("place", ["tinyb/1", "tiny/2"])
def test_a_folder_of_another_name_than_the_manifest_says_is_refused(
    tiny_artifact: Path, tmp_path: Path, place: str
) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / place)
    with pytest.raises(ArtifactError, match="so the folder must end in tiny/1"):
        open_artifact(folder)


def test_an_older_format_is_refused_with_what_to_do(tiny_artifact: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")
    manifest = open_artifact(tiny_artifact).manifest
    write_manifest(folder, manifest.model_copy(update={"format_version": 1}))
    with pytest.raises(ArtifactError, match=r"format version 1, .* export the run again"):
        open_artifact(folder)


def test_the_newest_version_of_every_model_is_found(tmp_path: Path) -> None:
    for folder in ("news/2", "news/10", "articles/1", "news/.3-broken"):
        (tmp_path / folder).mkdir(parents=True)
    found = [path.relative_to(tmp_path).as_posix() for path in find_artifacts(tmp_path)]
    assert found == ["articles/1", "news/10"]


def test_a_folder_without_artifacts_is_named(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artifact here"):
        list(find_artifacts(tmp_path))
