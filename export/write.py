"""Writes an artifact, whole or not at all: graphs, weights, ids, golden pairs, manifest, card."""

import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from export.card_picture import card_picture
from export.golden import golden_pairs
from export.graphs import export_graphs
from export.model_card import model_card
from export.parity import compare, report, summary
from export.titles import ForPeople, example_histories, item_titles
from model.clicks.histories import Histories
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.item_table import ItemTable
from persona.artifact.catalogue import LARGE_CATALOGUE, write_catalogue
from persona.artifact.format import (
    CARD_PICTURE,
    EXAMPLES,
    GOLDEN,
    ITEM_EMBEDDINGS,
    ITEM_FEATURES,
    ITEM_IDS,
    ITEM_LEARNED,
    ITEM_PROJECTION,
    ITEM_TITLES,
    MANIFEST,
    MODEL_CARD,
    PARITY,
    Architecture,
    Examples,
    Facts,
    Golden,
    GraphFact,
    GraphName,
    IndexFact,
    ItemFeatures,
    Manifest,
    ParityFact,
)
from persona.artifact.reading import Artifact
from persona.artifact.writing import new_version, write_json, write_manifest
from persona.contract import Floats, ItemId
from persona.features import FeatureColumn

GOLDEN_TOLERANCE = 1e-4  # room for another processor's order of summation


@dataclass(frozen=True)
class ItemProjection:
    """What the item vectors are made of: features times a matrix, plus a learned part."""

    columns: Sequence[FeatureColumn]
    matrix: Floats  # (F, D)
    learned: Floats  # (n_items, D)


@dataclass(frozen=True)
class Description:
    """What a person needs to know of the artifact beside the network."""

    name: str
    version: str = "1"
    description: str = ""
    licence: str = "not stated"
    training: Facts = field(default_factory=dict)  # data, credit, recipe, command, seconds
    metrics: Facts = field(default_factory=dict)  # as `persona evaluate` reports them
    examples: Sequence[Sequence[ItemId]] = ()  # histories for the golden pairs
    index_for: Histories | None = None  # whose clicks measure an index; None: no index
    for_people: ForPeople = ForPeople()  # noqa: RUF009  # frozen
    features: ItemProjection | None = None  # None: the model reads none


def write_artifact(
    encoder: UserEncoder, item_ids: Sequence[ItemId], about: Description, root: Path
) -> Path:
    """Exports the encoder as `root/<name>/<version>/`, and returns that folder.

    Raises:
        ArtifactError: that version is there already, or the name or version is not allowed.
        ParityError: ONNX Runtime's answers differ from PyTorch's.
        RecallError: the index misses too many of the best items.
        TitlesError: the names, links or examples cannot be used.
    """
    with new_version(root, about.name, about.version) as folder:
        _fill(folder, _plain(encoder.eval()), item_ids, about)
    return root / about.name / about.version


def _plain(encoder: UserEncoder) -> UserEncoder:
    """An encoder whose item table is one tensor, as the graphs read it."""
    reads_features = isinstance(encoder.item_embedding, ItemTable)
    return encoder.with_plain_table() if reads_features else encoder


def _fill(
    folder: Path, encoder: UserEncoder, item_ids: Sequence[ItemId], about: Description
) -> None:
    graphs = export_graphs(encoder, folder)
    cases = compare(encoder, folder, graphs)
    write_json(folder / PARITY, report(cases))
    write_json(folder / ITEM_IDS, list(item_ids))
    if len(item_ids) > LARGE_CATALOGUE:
        write_catalogue(item_ids, folder)
    write_for_people(folder, about.for_people, item_ids)
    if about.features is not None:
        write_json(folder / ITEM_FEATURES, _features(about.features))
        np.save(folder / ITEM_PROJECTION, about.features.matrix)
        np.save(folder / ITEM_LEARNED, about.features.learned)
    pairs = list(golden_pairs(encoder, item_ids, about.examples))
    golden = Golden(tolerance=GOLDEN_TOLERANCE, pairs=pairs)
    write_json(folder / GOLDEN, golden.model_dump())
    index = _index(folder, encoder, about.index_for)
    manifest = _manifest(encoder, about, graphs, summary(cases), index)
    write_manifest(folder, manifest)
    write_card(folder)


def write_card(folder: Path) -> None:
    """Writes the model card of an artifact, and its picture; the manifest lists both.

    Nothing else of the artifact changes, so one that was exported earlier may get another card.
    """
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    golden = Golden.model_validate_json((folder / GOLDEN).read_bytes())
    picture = card_picture(Artifact(folder, manifest, golden))
    if picture is not None:
        (folder / CARD_PICTURE).write_text(picture, encoding="utf-8")
    card = model_card(manifest, pictured=picture is not None)
    (folder / MODEL_CARD).write_text(card, encoding="utf-8")
    write_manifest(folder, manifest)


def write_for_people(folder: Path, about: ForPeople, item_ids: Sequence[ItemId]) -> None:
    """Writes the names, links and examples, as far as there are any.

    Raises:
        ArtifactError, TitlesError: a file cannot be used.
    """
    if (titles := item_titles(about, item_ids)) is not None:
        write_json(folder / ITEM_TITLES, titles.model_dump())
    if examples := example_histories(about, item_ids):
        write_json(folder / EXAMPLES, Examples(examples=examples).model_dump())


def _features(projection: ItemProjection) -> Facts:
    return ItemFeatures(columns=list(projection.columns)).model_dump(mode="json")


def _manifest(
    encoder: UserEncoder,
    about: Description,
    graphs: dict[GraphName, GraphFact],
    parity: ParityFact,
    index: IndexFact | None,
) -> Manifest:
    """All but the checksums, which are taken when it is written."""
    return Manifest(
        name=about.name,
        version=about.version,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        description=about.description,
        licence=about.licence,
        architecture=_architecture(encoder.config),
        n_items=encoder.n_items,
        graphs=graphs,
        columns=dict(encoder.config.columns),
        files={},
        training=about.training,
        metrics=about.metrics,
        parity=parity,
        index=index,
        versions={
            "persona": version("persona-encoder"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": version("onnx"),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    )


def _architecture(config: EncoderConfig) -> Architecture:
    """All choices but the columns of clicks, which the manifest declares by themselves."""
    choices = {name: value for name, value in asdict(config).items() if name != "columns"}
    return Architecture.model_validate(choices)


def _index(folder: Path, encoder: UserEncoder, users: Histories | None) -> IndexFact | None:
    if users is None:
        return None
    from export.index import sample_users, write_index  # noqa: PLC0415  # needs faiss

    table = np.load(folder / ITEM_EMBEDDINGS, mmap_mode="r")[:-1]
    return write_index(table, sample_users(encoder, users), folder)
