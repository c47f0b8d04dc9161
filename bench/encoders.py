"""The encoder that the serving benchmarks serve: random weights, d 64, 2 heads, 2 blocks.

An embedding costs the same whatever the weights say. Made once and kept in the cache folder, by
the code that made it: as an artifact for Persona, and as `plain.onnx` for everybody else.
"""

import hashlib
import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from torch import Tensor, nn

from bench.loads import CATALOGUE, MAX_LENGTH, item_ids
from export.write import Description, write_artifact
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.network.sequence import take
from persona.artifact.catalogue import LARGE_CATALOGUE, write_catalogue
from persona.artifact.format import GOLDEN, ITEM_EMBEDDINGS, ITEM_IDS, MANIFEST, Golden, Manifest
from persona.artifact.writing import write_manifest

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "persona-bench"
NAME = "bench"


def artifacts(
    width: int = 64, max_length: int = MAX_LENGTH, seed: int = 0, window_step: int = 1
) -> Path:
    """A root folder with the artifact `bench`, version 1."""
    name = f"{width}-wide-{max_length}-long" + (f"-{seed}" if seed else "")
    config = EncoderConfig(width=width, max_length=max_length, window_step=window_step)
    if window_step > 1:
        name += f"-by-{window_step}"
    return _kept(name, lambda root: _export(root, config, seed))


@contextmanager
def resized(n_items: int) -> Iterator[Path]:
    """A root folder with the artifact `bench` over another number of items; gone afterwards."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as root:
        resize(artifacts() / NAME / "1", Path(root) / NAME / "1", n_items)
        yield Path(root)


def plain_onnx() -> Path:
    """The encoder of `artifacts()` in one plain fp32 file, every position of every block."""
    return _kept("plain", _export_plain) / "plain.onnx"


def _encoder(config: EncoderConfig, seed: int = 0) -> UserEncoder:
    torch.manual_seed(seed)
    return UserEncoder(config, CATALOGUE).eval()


def _export(root: Path, config: EncoderConfig, seed: int) -> None:
    about = Description(NAME, description="Random weights, for benchmarks.")
    write_artifact(_encoder(config, seed), item_ids(), about, root)


class PlainGraph(nn.Module):
    """An encoder as most people export it: all states, then the newest one."""

    def __init__(self, encoder: UserEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, item_ids: Tensor, key_mask: Tensor) -> Tensor:
        """(B, L), (B, L) to (B, D)."""
        states, sequence = self.encoder.states(item_ids, key_mask)
        return take(states, sequence.newest)


def _export_plain(root: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    inputs = (torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.bool))
    path = root / "plain.onnx"
    with warnings.catch_warnings():
        # From within torch.export, on copying its own trees.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        torch.onnx.export(
            PlainGraph(_encoder(EncoderConfig(max_length=MAX_LENGTH))).eval(),
            inputs,
            path,
            dynamo=True,
            input_names=["item_ids", "key_mask"],
            output_names=["user_embedding"],
            dynamic_shapes=({0: dynamic, 1: dynamic}, {0: dynamic, 1: dynamic}),
            external_data=False,
            verbose=False,
        )
    _compare(path, artifacts() / NAME / "1" / "embedding.onnx")


def _compare(one: Path, other: Path) -> None:
    """Whoever computes less must compute the same."""
    rng = np.random.default_rng(0)
    feeds = {
        "item_ids": rng.integers(0, CATALOGUE, (3, MAX_LENGTH)),
        "key_mask": np.arange(MAX_LENGTH) < np.array([[3], [77], [MAX_LENGTH]]),
    }
    sessions = (onnxruntime.InferenceSession(path) for path in (one, other))
    first, second = (session.run(["user_embedding"], feeds)[0] for session in sessions)
    np.testing.assert_allclose(first, second, atol=1e-4)


def resize(source: Path, target: Path, n_items: int) -> None:
    """Copies an artifact with another number of items, too many for PyTorch to export.

    Its golden pairs still hold: the first items and the row of unknown items stay.
    """
    shutil.copytree(source, target)
    old = np.load(source / ITEM_EMBEDDINGS, mmap_mode="r")
    table = np.lib.format.open_memmap(
        target / ITEM_EMBEDDINGS, "w+", np.dtype(np.float32), (n_items + 1, old.shape[1])
    )
    for at in range(0, n_items, CATALOGUE):
        piece = table[at : min(at + CATALOGUE, n_items)]
        piece[:] = old[: len(piece)]
    table[-1] = old[-1]
    table.flush()
    ids = item_ids(n_items)
    (target / ITEM_IDS).write_text(json.dumps(ids))
    if n_items > LARGE_CATALOGUE:
        write_catalogue(ids, target)
    manifest = Manifest.model_validate_json((source / MANIFEST).read_bytes())
    for graph in manifest.graphs.values():
        _resize_graph(target / graph.file, table)
    _resize_golden(target / GOLDEN, n_items)
    write_manifest(target, manifest.model_copy(update={"n_items": n_items}))


def _resize_graph(path: Path, table: np.ndarray) -> None:
    graph = onnx.load(path, load_external_data=False)
    for tensor in graph.graph.initializer:
        facts = {entry.key: entry for entry in tensor.external_data}
        if tensor.external_data and facts["location"].value == ITEM_EMBEDDINGS:
            tensor.dims[0] = len(table)
            facts["length"].value = str(table.nbytes)
    path.write_bytes(graph.SerializeToString())


def _resize_golden(path: Path, n_items: int) -> None:
    """Leaves out the pairs with items that a smaller catalogue no longer has."""
    golden = Golden.model_validate_json(path.read_bytes())
    gone = {f"n{row}" for row in range(n_items, CATALOGUE)}
    pairs = [pair for pair in golden.pairs if gone.isdisjoint(pair.history)]
    path.write_text(golden.model_copy(update={"pairs": pairs}).model_dump_json())


def _kept(name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` fills, whole or not at all, and which stays for the next time."""
    folder = CACHE / "encoders" / f"{name}-{_code()}"
    if not folder.exists():
        building = folder.with_name(f"{folder.name}.{os.getpid()}")
        building.mkdir(parents=True)
        make(building)
        building.rename(folder)
    return folder


def _code() -> str:
    """A digest of the code that makes the encoders: when it changes, so do they."""
    folders = ("export", "model/network", "persona/artifact")
    sources = [Path(__file__)]
    sources += [path for folder in folders for path in (ROOT / folder).glob("*.py")]
    content = b"".join(path.read_bytes() for path in sorted(sources))
    return hashlib.sha256(content).hexdigest()[:12]
