"""Recommendations: exact search beside NumPy, the index beside both, memory, and reasons."""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import numpy as np
import typer

from bench import loads
from bench.encoders import CACHE, NAME, ROOT, artifacts, resize, resized
from bench.load import closed_loop, requests
from bench.loads import CATALOGUE, DATA
from bench.memory import proportional_bytes
from bench.peers import persona, persona_body, running
from bench.report import table, tell
from bench.results import record, record_table
from export.index import write_index
from persona.artifact import open_artifact
from persona.artifact.format import ITEM_EMBEDDINGS, MANIFEST, Manifest
from persona.artifact.writing import write_manifest
from persona.contract import Floats, ItemId
from persona.engine import Engine
from persona.engine.index import Index
from persona.engine.search import Scan, Search, Table
from persona.results import PooledAttention

ITEMS, FEW_ITEMS, WIDTH, K, BATCH = 1_000_000, 1_000, 64, 100, 32
PAGE = ROOT / "docs" / "recommending.md"
HISTORIES, ORDERS = 100, 100
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
Rounds = Annotated[int, typer.Option(help="Rounds; medians count.", min=1)]
Items = Annotated[int, typer.Option(help="Of the large artifact.", min=CATALOGUE)]


def recommend(rounds: Rounds = 5, items: Items = ITEMS) -> None:
    """Search over a million items, exact and by the index; a worker's memory for it."""
    command = f"python -m bench recommend --rounds {rounds}"
    with _real_shaped(items) as (root, users):
        found = _measured_alone(root, users, rounds)
        large = _worker_bytes(root, items)
    with resized(FEW_ITEMS) as root:  # without an index, and so without faiss
        small = _worker_bytes(root, FEW_ITEMS)
    share = (large - small) / (items * WIDTH * 4)
    record("recommend_exact_vs_numpy", round(found["exact"] / found["numpy"], 3), 1.3, command)
    record("recommend_index_vs_exact", round(found["exact"] / found["index"], 1), 10, command)
    record("recommend_index_recall100", round(found["recall"], 4), 0.95, command)
    record("recommend_worker_memory_share", round(share, 4), 0.15, command)
    kinds = {"numpy": "NumPy: product and argpartition", "exact": "exact", "index": "index"}
    rows = [[kinds[kind], f"{1 / found[kind]:,.0f}"] for kind in kinds]
    text = (
        f"Users per second. Each user gets the best {K} of {items:,} items of width {WIDTH}, in "
        f"batches of {BATCH}, on one thread; medians of {rounds} rounds. The items are copies of "
        "those of `articles`, in 64 dimensions and with noise; the users are 1,000 people of "
        f"Wikispeedia. The index finds {found['recall']:.1%} of the exact items; an extra worker "
        f"takes {share:.1%} of the table's memory."
    )
    tell("recommend", "Search speed", f"{text}\n\n{table(['search', 'users/s'], rows)}", [PAGE])


def reasons() -> None:
    """Compares the ranking of clicks by reasons with leaving each out and with Shapley values."""
    command = "python -m bench reasons"
    rows = []
    for model, histories in (("news", _visitors()), ("articles", _people())):
        agreement = _agreement(model, histories)
        record(f"recommend_reasons_{model}", round(agreement["left out"], 4), 1, command)
        rows.append([f"`{model}`", *(f"{value:.2f}" for value in agreement.values())])
    head = ["model", "reasons, leaving out", "reasons, Shapley", "attention, Shapley"]
    text = (
        "Spearman's rank correlation over the clicks of a history. Each number is the mean over "
        f"{HISTORIES} real histories of 4 to 15 clicks, and over the 10 best items of each. The "
        "columns compare the reasons with the loss when a click is left out, the reasons with "
        "Shapley values, and the pooled attention with Shapley values. Shapley values are sampled "
        f"in {ORDERS} random orders."
    )
    record_table("reasons", f"### Reasons measured\n\n{text}\n\n{table(head, rows)}\n", [PAGE])


@contextmanager
def _real_shaped(n_items: int) -> Iterator[tuple[Path, Floats]]:
    """An artifact with items around those of a trained model and an index; and its users."""
    rows, users = _trained()
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as root:
        folder = Path(root) / NAME / "1"
        resize(artifacts() / NAME / "1", folder, n_items)
        items = np.load(folder / ITEM_EMBEDDINGS, mmap_mode="r+")
        rng = np.random.default_rng(0)
        spread = 0.5 * rows.std(axis=0)
        for start in range(CATALOGUE, n_items, CATALOGUE):  # the first stay, for the golden pairs
            piece = items[start : min(start + CATALOGUE, n_items)]
            around = rows[rng.integers(0, len(rows), len(piece))]
            piece[:] = around + spread * rng.standard_normal(piece.shape)
        items.flush()
        fact = write_index(items[:-1], users, folder)
        manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
        write_manifest(folder, manifest.model_copy(update={"index": fact}))
        yield Path(root), users


def _trained() -> tuple[Floats, Floats]:
    """Items of the shipped `articles`, and users, in the 64 directions that hold most of them."""
    engine = Engine.open(ROOT / "artifacts" / "articles")
    items = engine.registry.find().artifact.item_embeddings()[:-1]  # (n_items, 256)
    directions = np.linalg.svd(items, full_matrices=False)[2][:WIDTH].T  # (256, 64)
    users = engine.encode(_people(1000)).embeddings @ directions
    return items @ directions, np.ascontiguousarray(users)


def _people(n: int = 2000) -> list[list[str]]:
    """Paths through Wikipedia, without the steps back."""
    lines = (DATA / "wikispeedia-paths-unfinished.tsv").read_text().splitlines()
    paths = (line.split("\t")[3].split(";") for line in lines if line.count("\t") >= 3)
    return [[item for item in path if item != "<"] for path in paths][:n]


def _visitors() -> list[list[str]]:
    lines = (DATA / "msnbc990928.seq").read_text().splitlines()
    sections = next(line.split() for line in lines if line.startswith("frontpage"))
    visits = (line.split() for line in lines[-5000:] if line[:1].isdigit())
    return [[sections[int(item) - 1] for item in visit] for visit in visits]


def _measured_alone(root: Path, users: Floats, rounds: int) -> dict[str, float]:
    """The result of `measured`, in a separate process with one thread."""
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        np.save(file, users)
        file.flush()
        command = [sys.executable, "-m", "bench.recommend", str(root), file.name, str(rounds)]
        environment = os.environ | ONE_THREAD
        done = subprocess.run(
            command, cwd=ROOT, env=environment, check=True, text=True, stdout=subprocess.PIPE
        )
    answer: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return answer


def measured(root: Path, users: Floats, rounds: int) -> dict[str, float]:
    """Seconds a user of NumPy, of exact search and of the index; and the index's recall."""
    artifact = open_artifact(root / NAME / "1")
    embeddings = artifact.item_embeddings()[:-1]
    assert artifact.manifest.index is not None
    search, index = Search(Table(embeddings)), Index(artifact, artifact.manifest.index)
    kinds: dict[str, Callable[[Floats], object]] = {
        "numpy": lambda batch: np.argpartition(batch @ embeddings.T, -K, axis=1)[:, -K:],
        "exact": partial(_searched, search),
        "index": partial(_searched, search, index=index),
    }
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(rounds):
        batch = users[number * BATCH : (number + 1) * BATCH]
        for kind, run in kinds.items():
            times = 10 if kind == "index" else 1
            started = time.perf_counter()
            for _ in range(times):
                run(batch)
            seconds[kind].append((time.perf_counter() - started) / times / len(batch))
    shares = []
    for start in range(0, 320, BATCH):
        batch = users[-320:][start : start + BATCH]
        pairs = zip(_searched(search, batch), _searched(search, batch, index=index), strict=True)
        shares += [len(np.intersect1d(one.rows, other.rows)) / K for one, other in pairs]
    recall = float(np.mean(shares))
    return {kind: median(each) for kind, each in seconds.items()} | {"recall": recall}


def _searched(search: Search, batch: Floats, index: Index | None = None) -> list[Scan]:
    scans = [Scan(search.table, user, K, np.empty(0, np.int64)) for user in batch]
    steps = search.whole(scans) if index is None else search.indexed(scans, index)
    for step in steps:
        assert not isinstance(step.group, str)  # no graph
        step.group.compute(step.inputs)
    return scans


def _worker_bytes(root: Path, n_items: int) -> float:
    """The memory that one more worker adds, after exact and indexed answers."""
    two, three = (_loaded_bytes(root, n_items, workers) for workers in (2, 3))
    return three - two


def _loaded_bytes(root: Path, n_items: int, workers: int) -> float:
    server = replace(persona(root, workers=workers), path="/v1/recommend", body=_body)
    rows = loads.of_lengths(loads.lengths("films", 500), n_items)
    with running(server) as started:
        closed_loop(started.port, requests(server, [[row] for row in rows]), 10)
        return proportional_bytes(started)


def _body(histories: loads.Rows) -> bytes:
    exact = len(histories[0]) % 4 == 0
    fields: dict[str, Any] = json.loads(persona_body(histories))
    return json.dumps(fields | {"k": K, "exact": exact}).encode()


def _agreement(model: str, histories: list[list[str]]) -> dict[str, float]:
    """Mean rank correlations of reasons, and of attention, with what clicks are worth."""
    engine = Engine.open(ROOT / "artifacts" / model)
    chosen = [one for one in histories if 4 <= len(one) <= 15][:HISTORIES]
    answer = engine.recommend(chosen, 10, with_reasons=True)
    pooled = engine.encode(chosen, attention="pooled").users
    found: dict[str, list[float]] = {"left out": [], "Shapley": [], "attention": []}
    for history, user, seen in zip(chosen, answer.users, pooled, strict=True):
        assert user.reasons is not None
        assert isinstance(seen.attention, PooledAttention)
        without = [history[:at] + history[at + 1 :] for at in range(len(history))]
        parts = engine.score(without, user.items).users
        left_out = user.scores - np.stack([part.scores for part in parts])  # (L, 10)
        shapley = _shapley(engine, history, user.items)  # (L, 10)
        weights = seen.attention.weights.mean(axis=0)  # (L,)
        for own, lost, worth in zip(user.reasons.weights, left_out.T, shapley.T, strict=True):
            found["left out"].append(_rank_correlation(own, lost))
            found["Shapley"].append(_rank_correlation(own, worth))
            found["attention"].append(_rank_correlation(weights, worth))
    return {kind: float(np.nanmean(values)) for kind, values in found.items()}


def _shapley(engine: Engine, history: list[str], items: list[ItemId]) -> Floats:
    """The contribution of each click to each score, averaged over random orders: (L, N)."""
    rng, length = np.random.default_rng(0), len(history)
    orders = [rng.permutation(length) for _ in range(ORDERS)]
    parts = [[history[at] for at in sorted(o[:n])] for o in orders for n in range(length + 1)]
    scores = np.stack([user.scores for user in engine.score(parts, items).users])
    added = np.diff(scores.reshape(ORDERS, length + 1, -1), axis=1)  # (orders, L, N)
    total: Floats = np.zeros_like(added[0])
    for order, each in zip(orders, added, strict=True):
        total[order] += each
    total /= ORDERS
    return total


def _rank_correlation(one: Any, other: Any) -> float:
    """Spearman's, for values without ties."""
    ranks = np.argsort(np.argsort(np.stack([one, other]), axis=1), axis=1)  # (2, L)
    correlations: Floats = np.asarray(np.corrcoef(ranks))
    return float(correlations[0, 1])


if __name__ == "__main__":
    print(json.dumps(measured(Path(sys.argv[1]), np.load(sys.argv[2]), int(sys.argv[3]))))
