"""From start to end: readiness, broken artifacts, overload, deadlines, draining."""

import asyncio
import hashlib
import json
import shutil
from pathlib import Path

import httpx
import pytest

from persona.artifact.format import (
    MANIFEST,
    MANIFEST_CHECKSUM,
    Manifest,
    checksum,
    manifest_checksum_line,
)
from service.protocols.native.schema import Models
from tests.serving import serving, wait_until

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
HISTORIES = {"histories": [["item 1"]]}


@pytest.fixture
def copy(tiny_artifact: Path, tmp_path: Path) -> Path:
    """The folder of a copy of the tiny artifact, in a root of its own."""
    return shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1")


def readiness(root: Path) -> tuple[int, str]:
    with serving(root) as client:
        response = client.get("/health/ready")
        assert client.get("/health/live").status_code == 200
        assert client.post("/v1/encode", json=HISTORIES).status_code == response.status_code
        assert client.get("/v1/models").status_code == response.status_code
    return response.status_code, response.text


def test_the_flipped_files_are_all_there_are(tiny_artifact: Path) -> None:
    assert sorted(path.name for path in tiny_artifact.iterdir()) == FILES


@pytest.mark.parametrize("name", FILES)
def test_one_flipped_byte_keeps_the_service_from_ready_and_names_the_file(
    copy: Path, name: str
) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    status, text = readiness(copy.parents[1])
    assert status == 503
    assert str(copy / name) in text


def test_a_missing_file_is_named(copy: Path) -> None:
    (copy / "weights.bin").unlink()
    status, text = readiness(copy.parents[1])
    assert status == 503
    assert "weights.bin: missing" in text


def test_a_model_that_answers_differently_from_its_golden_pairs_is_refused(copy: Path) -> None:
    golden = json.loads((copy / "golden.json").read_bytes())
    golden["pairs"][0]["user_embedding"][0] += 0.01
    (copy / "golden.json").write_text(json.dumps(golden))
    sign_again(copy)
    status, text = readiness(copy.parents[1])
    assert status == 503
    assert ".onnx: differs from the golden embeddings by 0.0" in text


def sign_again(folder: Path, **changes: str) -> None:
    """Makes the manifest agree with files that were changed."""
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    manifest.files["golden.json"] = checksum(folder / "golden.json")
    (folder / MANIFEST).write_text(manifest.model_copy(update=changes).model_dump_json())
    (folder / MANIFEST_CHECKSUM).write_bytes(manifest_checksum_line(folder / MANIFEST))


def test_a_folder_without_artifacts_is_named(tmp_path: Path) -> None:
    status, text = readiness(tmp_path)
    assert status == 503
    assert f"{tmp_path}: no artifact here" in text


def test_the_newest_version_of_every_model_is_served(copy: Path) -> None:
    root = copy.parents[1]
    for name, version in (("tiny", "10"), ("tiny", "9"), ("also", "2")):
        folder = shutil.copytree(copy, root / name / version)
        sign_again(folder, name=name, version=version)
    with serving(root) as client:
        models = Models.model_validate_json(client.get("/v1/models").content).models
        user = client.post("/v1/encode", json=HISTORIES | {"model": "tiny"}).json()
        default = client.post("/v1/encode", json=HISTORIES).json()
    assert [(model.name, model.version) for model in models] == [("also", "2"), ("tiny", "10")]
    assert (user["model"], user["version"], default["model"]) == ("tiny", "10", "also")


def test_the_file_default_names_the_model_of_requests_that_name_none(copy: Path) -> None:
    root = copy.parents[1]
    sign_again(shutil.copytree(copy, root / "also" / "2"), name="also", version="2")
    (root / "default").write_text("tiny\n")
    with serving(root) as client:
        models = Models.model_validate_json(client.get("/v1/models").content).models
        answered = client.post("/v1/encode", json=HISTORIES).json()["model"]
    assert ([model.name for model in models], answered) == (["tiny", "also"], "tiny")


def test_a_default_that_is_not_there_is_named(copy: Path) -> None:
    root = copy.parents[1]
    (root / "default").write_text("typo")
    status, text = readiness(root)
    assert status == 503
    assert "no model 'typo' here, only tiny" in text


def test_a_model_shows_its_architecture_and_sizes(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts) as client:
        (model,) = Models.model_validate_json(client.get("/v1/models").content).models
    assert (model.n_items, model.width, model.max_length) == (20, 16, 12)
    manifest = (tiny_artifacts / "tiny" / "1" / "manifest.json").read_bytes()
    assert model.checksum == hashlib.sha256(manifest).hexdigest()
    assert (model.architecture.attention, model.architecture.heads) == ("self", 2)


def test_overload_is_429_and_says_when_to_try_again(tiny_artifacts: Path) -> None:
    async def flood(url: httpx.URL) -> list[httpx.Response]:
        body = {"histories": [["item 1"] * 12] * 200}
        async with httpx.AsyncClient(base_url=url, timeout=30) as client:
            return await asyncio.gather(*(client.post("/v1/encode", json=body) for _ in range(20)))

    with serving(tiny_artifacts, max_queue_tokens=1000, max_batch_tokens=13) as client:
        responses = asyncio.run(flood(client.base_url))
    refused = [response for response in responses if response.status_code != 200]
    assert 0 < len(refused) < 20
    assert {response.status_code for response in refused} == {429}
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["code"] == "overloaded"


def test_a_passed_deadline_is_504(tiny_artifacts: Path) -> None:
    with serving(tiny_artifacts, deadline_ms=1, max_batch_tokens=1) as client:
        response = client.post("/v1/encode", json={"histories": [["item 1"] * 12] * 1000})
    assert response.status_code == 504
    assert response.json()["error"]["message"] == "no result within 1 ms"


def test_what_a_client_left_behind_is_not_computed(tiny_artifacts: Path) -> None:
    def metric(client: httpx.Client, name: str) -> float:
        lines = client.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    with serving(tiny_artifacts, max_batch_tokens=1) as client:
        before = metric(client, "persona_histories_total")
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/encode", json={"histories": [["item 1"]] * 1024}, timeout=0.05)
        gone = 'persona_requests_total{route="/v1/encode",status="499"'
        wait_until(lambda: metric(client, gone) > 0)
        assert metric(client, "persona_histories_total") - before < 1024
