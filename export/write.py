"""Writes an artifact, whole or not at all: graphs, weights, ids, golden pairs, manifest, card."""

import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.graphs import export_graphs
from export.model_card import model_card
from export.parity import compare, report, summary
from export.titles import ForPeople, example_histories, item_titles
from model.clicks.histories import Histories, encoder_inputs
from model.network.encoder import UserEncoder
from persona.artifact.catalogue import LARGE_CATALOGUE, write_catalogue
from persona.artifact.format import (
    EXAMPLES,
    GOLDEN,
    ITEM_EMBEDDINGS,
    ITEM_FEATURES,
    ITEM_IDS,
    ITEM_LEARNED,
    ITEM_PROJECTION,
    ITEM_TITLES,
    MODEL_CARD,
    PARITY,
    Architecture,
    Examples,
    Facts,
    Golden,
    GoldenPair,
    GraphFact,
    GraphName,
    IndexFact,
    ItemFeatures,
    Manifest,
    ParityFact,
)
from persona.artifact.writing import new_version, write_json, write_manifest
from persona.contract import TIME, Floats, ItemId
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
        _fill(folder, encoder.eval(), item_ids, about)
    return root / about.name / about.version


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
    pairs = list(_golden_pairs(encoder, item_ids, about.examples))
    golden = Golden(tolerance=GOLDEN_TOLERANCE, pairs=pairs)
    write_json(folder / GOLDEN, golden.model_dump())
    index = _index(folder, encoder, about.index_for)
    manifest = _manifest(encoder, about, graphs, summary(cases), index)
    (folder / MODEL_CARD).write_text(model_card(manifest))
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
        architecture=Architecture.model_validate(asdict(encoder.config)),
        n_items=encoder.n_items,
        graphs=graphs,
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


def _index(folder: Path, encoder: UserEncoder, users: Histories | None) -> IndexFact | None:
    if users is None:
        return None
    from export.index import sample_users, write_index  # noqa: PLC0415  # needs faiss

    table = np.load(folder / ITEM_EMBEDDINGS, mmap_mode="r")[:-1]
    return write_index(table, sample_users(encoder, users), folder)


def _golden_pairs(
    encoder: UserEncoder, item_ids: Sequence[ItemId], examples: Sequence[Sequence[ItemId]]
) -> Iterator[GoldenPair]:
    """Pairs with an empty history, short ones, unknown items, too many clicks, and the examples."""
    first, last = item_ids[0], item_ids[-1]
    too_long = [item_ids[i % len(item_ids)] for i in range(encoder.config.max_length + 5)]
    unknown = [_unknown_id(item_ids), last]
    row_of = {item_id: row for row, item_id in enumerate(item_ids)}
    for history in ([], [first], [last, first, last], unknown, too_long, *map(list, examples)):
        rows = np.array([row_of.get(item_id, encoder.n_items) for item_id in history], np.int32)
        times, now = _golden_times(len(history))
        one = Histories([0], item_ids, rows, np.array([0, len(rows)]), {TIME: times}, now)
        timed = encoder.config.time != "none"
        inputs = encoder_inputs(one, *encoder.config.window, timed=timed)
        with torch.no_grad():
            embedding = encoder.encode(*map(torch.from_numpy, inputs))[0][0]  # (D,)
        yield GoldenPair(
            history=history,
            user_embedding=embedding.tolist(),
            columns={TIME: times.tolist()} if timed else {},
            now=int(now[0]) if timed else None,
        )


def _golden_times(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Times of so many clicks, ever further apart, and of asking, a day after the newest."""
    times = 1_700_000_000 + 60 * np.arange(length, dtype=np.int64) ** 2
    return times, np.array([times[-1] + 86_400 if length else 1_700_000_000])


def _unknown_id(item_ids: Sequence[ItemId]) -> ItemId:
    known = set(item_ids)
    if isinstance(item_ids[0], int):
        return max(item_id for item_id in known if isinstance(item_id, int)) + 1
    candidate = "unknown item"
    while candidate in known:
        candidate += "?"
    return candidate
