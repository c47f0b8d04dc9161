"""The format of an artifact: its files, and what its manifest says.

    artifacts/<name>/<version>/
        manifest.json          names, shapes, versions, checksums, training data, metrics
        manifest.sha256        checksum of the manifest (`sha256sum -c` reads it)
        signature.ed25519      only of signed artifacts; see persona/artifact/signature.py
        embedding.onnx         item_ids (B, L), key_mask (B, L) -> user_embedding (B, D)
        embedding_long.onnx    the same function, faster for long histories
        attention.onnx         embedding.onnx, and attention_pooled (B, H, 1 + L)
        attention_full.onnx    embedding.onnx, and attention_full (B, blocks, H, 1 + L, 1 + L)
        embedding_first.onnx   embedding.onnx, and what is kept of the clicks, (parts, B, 1 + L, D)
        embedding_next.onnx    of histories that are kept: their new clicks alone -> the same
        score.onnx             source-target attention: candidate_ids (B, N) is an input too
                               -> scores (B, N), candidate_attention (B, N, H, L)
        weights.bin            the tensors that the graphs share, except the item table
        item_embeddings.npy    (n_items + 1, D) float32; the last row is for unknown items. The
                               graphs read it in place, behind the header of the .npy file
        item_ids.json          item_ids[i] belongs to row i
        item_slots.npy         only for large catalogues: a hash table from ids to rows, which
        item_key_starts.npy    workers map and share; see persona/artifact/catalogue.py
        item_keys.bin
        item_index.faiss       only on request: an index of the item table, see export/index.py
        item_features.json     optional: the columns of the items' features, and
        item_projection.npy    (F, D) float32: an item's features, as numbers, times this matrix,
        item_learned.npy       plus (n_items, D) float32, is its row of the item table
        item_changes.json      only after items were added, changed or removed: how many were
                               trained, and which are hidden
        golden.json            histories and the embeddings that they must have
        evaluation.json        optional: histories and candidates that versions are compared by
        item_titles.json       optional: a name and a link of each item, for people
        examples.json          optional: named histories to begin with, for people
        parity.json            PyTorch compared with ONNX Runtime, case by case
        README.md              the model card

Position 0 of every (1 + L) axis is the start token; click l of the input is position 1 + l.
docs/artifact-format.md explains it to users.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from persona.artifact.errors import ArtifactError
from persona.contract import ItemId
from persona.features import FeatureColumn

MANIFEST = "manifest.json"
MANIFEST_CHECKSUM = "manifest.sha256"
SIGNATURE = "signature.ed25519"
WEIGHTS = "weights.bin"
ITEM_EMBEDDINGS = "item_embeddings.npy"
ITEM_IDS = "item_ids.json"
ITEM_SLOTS = "item_slots.npy"
ITEM_KEY_STARTS = "item_key_starts.npy"
ITEM_KEYS = "item_keys.bin"
ITEM_FEATURES = "item_features.json"
ITEM_PROJECTION = "item_projection.npy"
ITEM_LEARNED = "item_learned.npy"
ITEM_CHANGES = "item_changes.json"
GOLDEN = "golden.json"
EVALUATION = "evaluation.json"
ITEM_TITLES = "item_titles.json"
EXAMPLES = "examples.json"
ITEM_INDEX = "item_index.faiss"
PARITY = "parity.json"
MODEL_CARD = "README.md"
DEFAULT = "default"  # beside the models' folders

# An index is asked for so many times the items that are wanted; their exact scores choose.
INDEX_SURPLUS = 2
FORMAT_VERSION: Literal[2] = 2
NAME = r"^[a-z0-9][a-z0-9_.-]{0,62}$"
VERSION = r"^(0|[1-9][0-9]{0,17})$"

GraphName = Literal[
    "embedding",
    "embedding_long",
    "embedding_first",
    "embedding_next",
    "attention",
    "attention_full",
    "score",
]
Facts = dict[str, object]
# Pages show it as a link: nothing but an address of the web may stand there.
LINK = r"^https?://[^\s]+$"
Link = Annotated[str, Field(pattern=LINK)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TensorFact(_Strict):
    """Name, ONNX-style datatype and shape of a graph's output."""

    name: str
    datatype: Literal["INT64", "BOOL", "FP32"]
    shape: list[int]  # -1 for a dynamic axis


class InputFact(TensorFact):
    """A graph's input, and which part of a batch the engine feeds into it.

    `clicks.item_id` is the column `item_id` of the clicks, (B, L); `clicks.mask` is True on real
    clicks, (B, L); `candidates.item_id` is that column of the candidates, (B, N); `query.time` is
    the time of asking, (B,). What begins with `kept.` is for `persona/engine/continuing.py`.
    """

    carries: str = Field(pattern=r"^(clicks|candidates|query|kept)\.[a-z][a-z0-9_]*$")


class GraphFact(_Strict):
    """One ONNX file, and what goes in and out of it."""

    file: str
    inputs: list[InputFact]
    outputs: list[TensorFact]
    min_length: int = Field(default=0, ge=0)  # padded length from which the engine may choose it


class ColumnFact(_Strict):
    """A column of texts: graphs read the place of a text among these, or the one after the last."""

    values: list[str]


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
    time: Literal["none", "gaps", "buckets", "power", "rotary"] = "none"
    width: int = Field(ge=1)
    blocks: int = Field(ge=1)
    norm: Literal["pre", "post"]
    heads: int = Field(ge=1)
    max_length: int = Field(ge=1)
    window_step: int = Field(
        default=1, ge=1
    )  # clicks by which the window of longer histories moves
    feed_forward: int = Field(ge=1)  # hidden width of the feed-forward layer, in widths
    gated: bool
    embedding_scale: float
    dropout: float


class ParityFact(_Strict):
    """PyTorch compared with ONNX Runtime."""

    tolerance: float
    worst_absolute_difference: float
    largest_output: float  # absolute; where it exceeds 1, the tolerance is a share of it


class IndexFact(_Strict):
    """The index of the item table, and how much of the best items it finds."""

    file: str
    library: str  # and its version
    lists: int = Field(ge=1)  # that the items are parted into
    probes: int = Field(ge=1)  # lists that a search looks into
    recall_100: float = Field(ge=0, le=1)  # share of the exact best 100 items that it finds
    users: int = Field(ge=1)  # whose embeddings measured it


class Manifest(_Strict):
    """What `manifest.json` says; docs/artifact-format.md explains each field."""

    format_version: Literal[2] = FORMAT_VERSION
    name: str = Field(pattern=NAME)
    version: str = Field(pattern=VERSION)
    created: str  # UTC, ISO 8601
    description: str
    licence: str
    architecture: Architecture
    n_items: int = Field(ge=1)
    graphs: dict[GraphName, GraphFact]
    columns: dict[str, ColumnFact] = {}  # those of the clicks that are texts
    files: dict[str, FileFact]
    training: Facts
    metrics: Facts
    parity: ParityFact
    index: IndexFact | None = None
    versions: dict[str, str]


class GoldenPair(_Strict):
    """A history of raw item ids and the embedding that it must have."""

    history: list[ItemId]
    user_embedding: list[float]
    columns: dict[str, list[float | str]] = {}  # others of the clicks; 0 where one is absent
    now: float | None = None  # time of asking; None: that of the newest click


class Golden(_Strict):
    """Pairs that the engine replays when it opens the artifact; it refuses one that differs."""

    tolerance: float  # largest absolute difference allowed
    pairs: list[GoldenPair] = Field(min_length=1)


class EvaluationCase(_Strict):
    """A history and the items that might have come next."""

    history: list[ItemId]
    candidates: list[ItemId] = Field(min_length=2)  # the first was clicked, the others were not
    columns: dict[str, list[float | str]] = {}  # as in a golden pair
    now: float | None = None


class Evaluation(_Strict):
    """Cases by which the service compares a new version with the one that runs."""

    cases: list[EvaluationCase] = Field(min_length=1)


class ItemTitles(_Strict):
    """What people call the items, by row: in either list, one entry for each of n_items."""

    names: list[str] | None = None  # None: the ids
    links: list[Link | None] | None = None  # None: no item has one


class ItemFeatures(_Strict):
    """What is known of items beside their clicks, in the order of the projection's rows."""

    columns: list[FeatureColumn] = Field(min_length=1)


class ItemChanges(_Strict):
    """What became of the catalogue after training."""

    trained: int = Field(ge=1)  # items; those of later rows were added
    hidden: list[ItemId] = []  # that are not recommended any more


class Example(_Strict):
    """A history to begin with, made up by a person."""

    name: str = Field(min_length=1)
    history: list[ItemId]


class Examples(_Strict):
    """The histories that a page or a notebook offers first."""

    examples: list[Example]


def check_name(name: str, version: str) -> None:
    """Checks what an artifact is to be called.

    Raises:
        ArtifactError: the name or the version has characters that it may not have.
    """
    if not re.match(NAME, name):
        raise ArtifactError(
            f"the name {name!r} is not allowed: up to 63 lower-case letters, digits and '_', '.', "
            "'-', beginning with a letter or a digit"
        )
    if not re.match(VERSION, version):
        raise ArtifactError(f"the version {version!r} is not a whole number, such as 1 or 20261126")


def checksum(path: Path) -> FileFact:
    """Size and SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileFact(bytes=path.stat().st_size, sha256=digest.hexdigest())


def manifest_checksum_line(path: Path) -> bytes:
    """What `manifest.sha256` must hold, in the form that `sha256sum -c` reads."""
    return f"{checksum(path).sha256}  {path.name}\n".encode()
