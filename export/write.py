"""Writes an artifact, whole or not at all: graphs, weights, ids, golden pairs, manifest, card."""

import json
import os
import platform
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray

from export.errors import TargetExists
from export.graphs import export_graphs
from export.int8 import Int8, as_facts, calibrate, check
from export.model_card import model_card
from export.parity import compare, report
from model.encoder import UserEncoder
from model.histories import ItemId, pad
from service.artifact import (
    GOLDEN,
    ITEM_IDS,
    MANIFEST,
    MANIFEST_CHECKSUM,
    MODEL_CARD,
    PARITY,
    Architecture,
    Facts,
    Golden,
    GoldenPair,
    GraphFact,
    GraphName,
    Manifest,
    checksum,
    manifest_checksum_line,
)
from service.catalogue import LARGE_CATALOGUE, write_rows

GOLDEN_TOLERANCE = 1e-4  # room for another processor's order of summation
# With another order, a number may be rounded to the next of 256 steps. A share of the largest.
INT8_GOLDEN_TOLERANCE = 0.02

Encode = Callable[[NDArray[np.int64], NDArray[np.bool_]], NDArray[np.float32]]


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


def write_artifact(
    encoder: UserEncoder,
    item_ids: Sequence[ItemId],
    about: Description,
    root: Path,
    int8: Int8 | None = None,
) -> Path:
    """Exports the encoder as `root/<name>/<version>/`, with products in 8 bits if there is `int8`.

    Everything is made in a folder beside it, compared, and moved there by one rename.

    Raises:
        TargetExists: that version is there already.
        ParityError: ONNX Runtime's answers differ from PyTorch's, both in fp32.
        GateError: 8 bits leave too little of the embeddings.
    """
    target = root / about.name / about.version
    if target.exists():
        raise TargetExists(f"{target} exists; choose another version")
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{about.version}-", dir=target.parent))
    try:
        _fill(building, encoder.eval(), item_ids, about, int8)
        building.chmod(0o755)  # mkdtemp's 0700 would lock out the container's user
        building.rename(target)
    except BaseException:
        shutil.rmtree(building)
        raise
    return target


def _fill(
    folder: Path,
    encoder: UserEncoder,
    item_ids: Sequence[ItemId],
    about: Description,
    int8: Int8 | None,
) -> None:
    graphs = export_graphs(encoder, folder)
    parity = report(compare(encoder, folder, graphs))
    gates = _round(encoder, folder, int8) if int8 else {}
    _write_json(folder / PARITY, parity)
    _write_json(folder / ITEM_IDS, list(item_ids))
    if len(item_ids) > LARGE_CATALOGUE:
        write_rows(item_ids, folder)
    encode, tolerance = _torch(encoder), GOLDEN_TOLERANCE
    if int8:
        encode = _through_onnx_runtime(folder / graphs["embedding"].file)
        tolerance = INT8_GOLDEN_TOLERANCE * max(1.0, float(str(parity["largest_output"])))
    pairs = _golden(encoder, encode, item_ids, about.examples)
    golden = Golden(tolerance=tolerance, pairs=pairs)
    _write_json(folder / GOLDEN, golden.model_dump())
    manifest = _manifest(encoder, about, graphs, parity).model_copy(update={"int8": gates})
    (folder / MODEL_CARD).write_text(model_card(manifest))
    files = {path.name: checksum(path) for path in sorted(folder.iterdir())}
    manifest = manifest.model_copy(update={"files": files})
    (folder / MANIFEST).write_text(manifest.model_dump_json(indent=2) + "\n")
    (folder / MANIFEST_CHECKSUM).write_bytes(manifest_checksum_line(folder / MANIFEST))
    os.sync()


def _round(encoder: UserEncoder, folder: Path, int8: Int8) -> Facts:
    """Puts graphs in 8 bits in the place of those in fp32, if the gates hold."""
    rounded = folder / "int8"
    rounded.mkdir()
    graphs = export_graphs(encoder, rounded, calibrate(encoder, int8.histories))
    table = encoder.item_embedding.weight.detach().numpy()[:-1]
    file, max_length = graphs["embedding"].file, encoder.config.max_length
    gates = check(folder / file, rounded / file, table, max_length, int8)
    for path in rounded.iterdir():
        path.replace(folder / path.name)
    rounded.rmdir()
    return as_facts(gates)


def _torch(encoder: UserEncoder) -> Encode:
    def encode(item_ids: NDArray[np.int64], key_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        with torch.no_grad():
            embeddings = encoder.encode(torch.from_numpy(item_ids), torch.from_numpy(key_mask))[0]
        found: NDArray[np.float32] = embeddings.numpy()
        return found

    return encode


def _through_onnx_runtime(graph: Path) -> Encode:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])

    def encode(item_ids: NDArray[np.int64], key_mask: NDArray[np.bool_]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(
            ["user_embedding"], {"item_ids": item_ids, "key_mask": key_mask}
        )[0]
        return found

    return encode


def _manifest(
    encoder: UserEncoder,
    about: Description,
    graphs: dict[GraphName, GraphFact],
    parity: Facts,
) -> Manifest:
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
        parity={key: value for key, value in parity.items() if key != "cases"},
        versions={
            "persona": version("persona-encoder"),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnx": version("onnx"),
            "onnxruntime": onnxruntime.__version__,
            "numpy": np.__version__,
        },
    )


def _golden(
    encoder: UserEncoder,
    encode: Encode,
    item_ids: Sequence[ItemId],
    examples: Sequence[Sequence[ItemId]],
) -> list[GoldenPair]:
    first, last = item_ids[0], item_ids[-1]
    histories: list[list[ItemId]] = [
        [],
        [first],
        [last, first, last],
        [_unknown_id(item_ids), last],
        [item_ids[i % len(item_ids)] for i in range(encoder.config.max_length + 5)],
        *map(list, examples),
    ]
    index = {item_id: row for row, item_id in enumerate(item_ids)}
    pairs = []
    for history in histories:
        rows = np.array([index.get(item_id, encoder.n_items) for item_id in history], np.int32)
        embedding = encode(*pad([rows], encoder.config.max_length))[0]
        pairs.append(GoldenPair(history=history, user_embedding=embedding.tolist()))
    return pairs


def _unknown_id(item_ids: Sequence[ItemId]) -> ItemId:
    known = set(item_ids)
    if isinstance(item_ids[0], int):
        return max(item_id for item_id in known if isinstance(item_id, int)) + 1
    candidate = "unknown item"
    while candidate in known:
        candidate += "?"
    return candidate


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n")
