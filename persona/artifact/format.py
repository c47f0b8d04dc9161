"""The format of an artifact: its files, and the fields of its manifest.

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
        item_index.faiss       optional: an index of the item table, see export/index.py
        item_features.json     optional: the columns of the items' features. An item's row is
        item_projection.npy    its features times this matrix, (F, D) float32,
        item_learned.npy       plus its row of this matrix, (n_items, D) float32
        item_changes.json      only if items were added, changed or removed: how many items
                               were trained, and which are hidden
        golden.json            histories and their expected embeddings
        evaluation.json        optional: histories and candidates for comparing versions
        item_titles.json       optional: names and links of the items, for people
        examples.json          optional: example histories, for people
        parity.json            PyTorch compared with ONNX Runtime, case by case
        README.md              the model card
        model_card.svg         optional: its picture

Position 0 of every (1 + L) axis is the start token; click l of the input is position 1 + l.
docs/artifact-format.md explains it to users.
"""

import hashlib
import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from persona.artifact.errors import ArtifactError
from persona.columns import ClickColumn
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
CARD_PICTURE = "model_card.svg"
DEFAULT = "default"  # beside the models' folders

# An index returns this many times the wanted items; their exact scores decide.
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
# Pages show it as a link, so only web addresses are allowed.
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
    """A graph's input, and the part of a batch that the engine feeds into it.

    `clicks.item_id` is the column `item_id` of the clicks, (B, L); `clicks.mask` is True on real
    clicks, (B, L); `candidates.item_id` is that column of the candidates, (B, N); `query.time` is
    the time of asking, (B,). What begins with `kept.` is for `persona/engine/continuing.py`.
    """

    carries: str = Field(pattern=r"^(clicks|candidates|query|kept)\.[A-Za-z][A-Za-z0-9_]*$")


class GraphFact(_Strict):
    """One ONNX file, with its inputs and outputs."""

    file: str
    inputs: list[InputFact]
    outputs: list[TensorFact]
    min_length: int = Field(default=0, ge=0)  # padded length from which the engine may choose it


class FileFact(_Strict):
    """Size and checksum of one file of the artifact."""

    bytes: int
    sha256: str


class Architecture(_Strict):
    """The encoder's options, as `GET /v1/models` shows them."""

    attention: Literal["self", "source_target"]
    similarity: Literal["dot", "scaled_dot", "additive", "general"]
    normalisation: Literal["softmax", "weighted_softmax"]
    pooling: Literal["newest", "mean", "additive"]
    positions: Literal["learned", "rotary", "none"]
    time: Literal["none", "gaps", "gaps_power", "buckets", "power", "rotary"] = "none"
    width: int = Field(ge=1)
    blocks: int = Field(ge=1)
    norm: Literal["pre", "post"]
    heads: int = Field(ge=1)
    max_length: int = Field(ge=1)
    feed_forward: int = Field(
        ge=1
    )  # hidden width of the feed-forward layer, as a multiple of width
    window_step: int = Field(
        default=1, ge=1
    )  # clicks by which the window of longer histories moves
    gated: bool
    embedding_scale: float
    dropout: float


class ParityFact(_Strict):
    """PyTorch compared with ONNX Runtime."""

    tolerance: float
    worst_absolute_difference: float
    largest_output: float  # absolute; above 1, the tolerance is relative to it


class IndexFact(_Strict):
    """The index of the item table, and its recall."""

    file: str
    library: str  # and its version
    lists: int = Field(ge=1)  # number of lists
    probes: int = Field(ge=1)  # lists that a search reads
    recall_100: float = Field(ge=0, le=1)  # share of the exact best 100 items found
    users: int = Field(ge=1)  # users that the recall was measured with


class Manifest(_Strict):
    """The content of `manifest.json`; docs/artifact-format.md explains each field."""

    format_version: Literal[2] = FORMAT_VERSION
    name: str = Field(pattern=NAME)
    version: str = Field(pattern=VERSION)
    created: str  # UTC, ISO 8601
    description: str
    licence: str
    architecture: Architecture
    n_items: int = Field(ge=1)
    graphs: dict[GraphName, GraphFact]
    columns: dict[str, ClickColumn] = {}  # of the clicks, besides item and time
    files: dict[str, FileFact]
    training: Facts
    metrics: Facts
    parity: ParityFact
    index: IndexFact | None = None
    versions: dict[str, str]


class GoldenPair(_Strict):
    """A history of raw item ids and its expected embedding."""

    history: list[ItemId]
    user_embedding: list[float]
    columns: dict[
        str, list[float | str | None]
    ] = {}  # other columns of the clicks; absent: no values
    now: float | None = None  # time of asking; None: the newest click's time


class Golden(_Strict):
    """Pairs that the engine replays when it opens the artifact; it refuses other embeddings."""

    tolerance: float  # largest absolute difference allowed
    pairs: list[GoldenPair] = Field(min_length=1)


class EvaluationCase(_Strict):
    """A history and candidates for the next click."""

    history: list[ItemId]
    candidates: list[ItemId] = Field(min_length=2)  # the first was clicked, the others were not
    columns: dict[str, list[float | str | None]] = {}  # as in a golden pair
    now: float | None = None


class Evaluation(_Strict):
    """Cases for comparing a new version with the running one."""

    cases: list[EvaluationCase] = Field(min_length=1)


class ItemTitles(_Strict):
    """Names and links of items: each list has one entry per row, n_items in all."""

    names: list[str] | None = None  # None: the ids
    links: list[Link | None] | None = None  # None: no item has any


class ItemFeatures(_Strict):
    """The columns of item features, in the order of the projection's rows."""

    columns: list[FeatureColumn] = Field(min_length=1)


class ItemChanges(_Strict):
    """Changes of the catalogue after training."""

    trained: int = Field(ge=1)  # number of trained items; later rows were added
    hidden: list[ItemId] = []  # no longer recommended


class Example(_Strict):
    """An example history, made up by a person."""

    name: str = Field(min_length=1)
    history: list[ItemId]


class Examples(_Strict):
    """Example histories for a page or a notebook."""

    examples: list[Example]


def check_name(name: str, version: str) -> None:
    """Checks an artifact's name and version.

    Raises:
        ArtifactError: the name or the version is not allowed.
    """
    if not re.match(NAME, name):
        raise ArtifactError(
            f"the name {name!r} is not allowed: up to 63 lower-case letters, digits and '_', '.', "
            "'-', starting with a letter or a digit"
        )
    if not re.match(VERSION, version):
        raise ArtifactError(f"the version {version!r} is not a whole number, such as 1 or 20261126")


def checksum(path: Path) -> FileFact:
    """Size and SHA-256 of a file, read in pieces."""
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return FileFact(bytes=path.stat().st_size, sha256=digest.hexdigest())


def manifest_checksum_line(path: Path) -> bytes:
    """The content of `manifest.sha256`, in the form that `sha256sum -c` reads."""
    return f"{checksum(path).sha256}  {path.name}\n".encode()
