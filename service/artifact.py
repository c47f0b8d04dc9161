"""The artifact: the folder that carries a trained encoder from export to serving.

    artifacts/<name>/<version>/
        manifest.json          names, shapes, versions, checksums, training data, metrics
        manifest.sha256        checksum of the manifest (`sha256sum -c` reads it)
        embedding.onnx         item_ids (B, L), key_mask (B, L) -> user_embedding (B, D)
        embedding_long.onnx    the same, faster from LONG clicks on; of models that read so many
        attention.onnx         embedding.onnx, and attention_pooled (B, H, 1 + L)
        attention_full.onnx    the same, and attention_full (B, blocks, H, 1 + L, 1 + L)
        score.onnx             source-target artifacts: candidate_ids (B, N) too
                               -> scores (B, N), candidate_attention (B, N, H, L)
        weights.bin            what all graphs share, but for the item table
        item_embeddings.npy    (n_items + 1, D) float32, the last row for unknown items; the
                               graphs read it in place, behind the header of the .npy file
        item_ids.json          item_ids[i] belongs to row i
        item_slots.npy         these three of large catalogues alone: from an id to its row, in
        item_key_starts.npy    files that all workers map and share, where a dict would take each
        item_keys.bin          of them half of the item table; see service/catalogue.py
        golden.json            histories and the embeddings that they must have
        parity.json            PyTorch against ONNX Runtime, case by case
        README.md              the model card

Position 0 of every (1 + L) axis is the start token; click l of the input is position 1 + l.
The contract between training and serving: export writes it, the service reads it.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from service.errors import ArtifactError

MANIFEST = "manifest.json"
MANIFEST_CHECKSUM = "manifest.sha256"
WEIGHTS = "weights.bin"
ITEM_EMBEDDINGS = "item_embeddings.npy"
ITEM_IDS = "item_ids.json"
ITEM_SLOTS = "item_slots.npy"
ITEM_KEY_STARTS = "item_key_starts.npy"
ITEM_KEYS = "item_keys.bin"
GOLDEN = "golden.json"
PARITY = "parity.json"
MODEL_CARD = "README.md"
DEFAULT = "default"  # beside the models' folders

LONG = 320  # clicks, padding included, from which a run takes `embedding_long`

GraphName = Literal["embedding", "embedding_long", "attention", "attention_full", "score"]
ItemId = str | int
Facts = dict[str, object]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorFact(_Strict):
    """Name, ONNX-style datatype and shape of a graph's input or output."""

    name: str
    datatype: Literal["INT64", "BOOL", "FP32"]
    shape: list[int]  # -1 for a dynamic axis


class GraphFact(_Strict):
    """One ONNX file and what goes in and out of it."""

    file: str
    inputs: list[TensorFact]
    outputs: list[TensorFact]


class FileFact(_Strict):
    """Size and checksum of one file of the artifact."""

    bytes: int
    sha256: str


class Architecture(_Strict):
    """The encoder's switches, as `GET /v1/models` shows them."""

    attention: Literal["self", "source_target"]
    similarity: Literal["dot", "scaled_dot", "additive", "general"]
    normalisation: Literal["softmax", "weighted_softmax"]
    pooling: Literal["newest", "mean", "additive"]
    positions: Literal["learned", "rotary", "none"]
    width: int = Field(ge=1)
    blocks: int = Field(ge=1)
    norm: Literal["pre", "post"] = "pre"
    heads: int = Field(ge=1)
    max_length: int = Field(ge=1)
    feed_forward: int = Field(ge=1)  # hidden width of the feed-forward layer, in widths
    gated: bool
    embedding_scale: float = 1.0
    dropout: float


class Manifest(_Strict):
    """What `manifest.json` says; see docs/artifact-format.md for each field."""

    format_version: Literal[1] = 1
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_.-]{0,62}$")
    version: str = Field(pattern=r"^[0-9]+$")
    created: str  # UTC, ISO 8601
    description: str
    licence: str
    architecture: Architecture
    n_items: int = Field(ge=1)
    graphs: dict[GraphName, GraphFact]
    files: dict[str, FileFact]
    training: Facts
    metrics: Facts
    parity: Facts
    int8: Facts = {}  # what the gates measured, where products are of 8 bits
    versions: dict[str, str]


class GoldenPair(_Strict):
    """A history of raw item ids and the embedding that it must have."""

    history: list[ItemId]
    user_embedding: list[float]


class Golden(_Strict):
    """Pairs that the service replays at start; it refuses to serve if one differs."""

    tolerance: float  # largest absolute difference allowed
    pairs: list[GoldenPair]


@dataclass(frozen=True)
class Artifact:
    """A verified artifact: every file present and equal to its checksum."""

    folder: Path
    manifest: Manifest
    golden: Golden

    @cached_property
    def item_ids(self) -> list[ItemId]:
        """The catalogue: item_ids[i] belongs to row i. Read when first asked for.

        Raises:
            ArtifactError: there are more or fewer ids than the manifest says.
        """
        path = self.folder / ITEM_IDS
        item_ids: list[ItemId] = json.loads(path.read_bytes())
        if len(item_ids) != self.manifest.n_items:
            raise ArtifactError(
                f"{path}: {len(item_ids)} ids, the manifest says {self.manifest.n_items}"
            )
        return item_ids

    def graph_path(self, graph: GraphName) -> Path:
        """Where the graph's file lies.

        Raises:
            ArtifactError: the artifact does not carry this graph.
        """
        fact = self.manifest.graphs.get(graph)
        if fact is None:
            raise ArtifactError(f"{self.folder}: the artifact carries no graph '{graph}'")
        return self.folder / fact.file

    def item_embeddings(self) -> NDArray[np.float32]:
        """The mapped item table, (n_items + 1, D); the last row belongs to unknown items."""
        table: NDArray[np.float32] = np.load(self.folder / ITEM_EMBEDDINGS, mmap_mode="r")
        return table


def open_artifact(folder: Path) -> Artifact:
    """Reads and verifies the artifact in `folder`.

    Raises:
        ArtifactError: a file is missing, has another size or checksum than the manifest says,
            is not described by it, or cannot be read; the message names the file.
    """
    manifest = _read_manifest(folder)
    known = {*manifest.files, MANIFEST, MANIFEST_CHECKSUM}
    for path in sorted(folder.iterdir()):
        if path.name not in known:
            raise ArtifactError(f"{path}: the manifest does not know this file")
    for name, fact in manifest.files.items():
        _verify(folder / name, fact)
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    return Artifact(folder, manifest, golden)


def find_artifacts(root: Path) -> list[Path]:
    """The newest version's folder of every model below `root`: the default's, the others by name.

    The default is named by the file `default` in `root`; without one it is the first by name.

    Raises:
        ArtifactError: `root` holds no artifact, or not the one that is to be the default.
    """
    newest = {}
    for model in sorted(path for path in root.glob("*") if path.is_dir()):
        versions = [path for path in model.iterdir() if path.is_dir() and path.name.isdecimal()]
        if versions:
            newest[model.name] = max(versions, key=lambda path: int(path.name))
    if not newest:
        raise ArtifactError(f"{root}: no artifact here; expected <name>/<version>/{MANIFEST}")
    choice = root / DEFAULT
    if choice.is_file():
        name = choice.read_text().strip()
        if name not in newest:
            raise ArtifactError(f"{choice}: no model '{name:.60}' here, only {', '.join(newest)}")
        newest = {name: newest[name]} | newest
    return list(newest.values())


def checksum(path: Path) -> FileFact:
    """Size and SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileFact(bytes=path.stat().st_size, sha256=digest.hexdigest())


def _read_manifest(folder: Path) -> Manifest:
    path, checksum_path = folder / MANIFEST, folder / MANIFEST_CHECKSUM
    for needed in (path, checksum_path):
        if not needed.is_file():
            raise ArtifactError(f"{needed}: missing")
    if checksum_path.read_bytes() != manifest_checksum_line(path):
        raise ArtifactError(f"{path}: differs from the checksum in {checksum_path}")
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ArtifactError(f"{path}: {error}") from error


def manifest_checksum_line(path: Path) -> bytes:
    """What `manifest.sha256` must hold, in the form that `sha256sum -c` reads."""
    return f"{checksum(path).sha256}  {path.name}\n".encode()


def _verify(path: Path, fact: FileFact) -> None:
    if not path.is_file():
        raise ArtifactError(f"{path}: missing")
    actual = checksum(path)
    if actual != fact:
        raise ArtifactError(
            f"{path}: {actual.bytes} bytes with SHA-256 {actual.sha256}, "
            f"the manifest says {fact.bytes} bytes with {fact.sha256}"
        )
