"""Every kind of attention on the same clicks and budget: quality, parity, answers over HTTP, time.

Each of the four similarities and two normalisations, in self- and source-target attention, is
trained, exported and loaded by one real service, and what it answers is compared with PyTorch.
"""

import logging
import statistics
import tempfile
import time
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar, get_args

import httpx
import numpy as np
import onnxruntime
import torch
import typer
from numpy.typing import NDArray
from torch import Tensor

from bench.results import record, record_table
from export.graphs import export_graphs
from export.parity import compare
from export.run import export_run
from model.clicks.histories import Cases, Histories, Split, pad
from model.evaluation.metrics import Estimate, evaluate_scorer
from model.evaluation.scorer import EncoderScorer
from model.network.attention import NORMALISATIONS, SIMILARITIES, Normalisation, Similarity
from model.network.config import AttentionKind, EncoderConfig
from model.network.encoder import UserEncoder
from model.training.recipe import DataRecipe, Recipe, TrainingRecipe
from model.training.run import begin, load_data, split
from model.training.train import load_encoder, train_encoder
from persona.artifact import open_artifact
from tests.serving import running_service

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "attention.md"
COMMAND = "python -m bench attention"
TOLERANCE = 1e-5
SHAPES = ((1, 50), (32, 50))
CANDIDATES = 10  # that the score graph is timed with
ASKED = 40  # held-out histories that go through HTTP
Key = TypeVar("Key", bound=Hashable)


class Kind(NamedTuple):
    """One of the 16."""

    attention: AttentionKind
    similarity: Similarity
    normalisation: Normalisation

    @property
    def name(self) -> str:
        """As the artifact is called."""
        return "-".join(self)

    def config(self, heads: int) -> EncoderConfig:
        """The encoder that is compared."""
        return EncoderConfig(*self, heads=heads, blocks=2, width=32, max_length=50, dropout=0.0)


KINDS = [Kind(*kind) for kind in product(get_args(AttentionKind), SIMILARITIES, NORMALISATIONS)]


@dataclass(frozen=True)
class Trained:
    """What one training gave."""

    parameters: int
    parity: float  # largest difference between PyTorch and ONNX Runtime
    embedding: Estimate  # NDCG@10, ranked by the user embedding
    candidates: Estimate | None  # NDCG@10, ranked by source-target scores of all items


class CandidateScorer:
    """Next-click scores by source-target attention, every item a candidate."""

    def __init__(self, encoder: UserEncoder) -> None:
        self.name = "candidates"
        self._encoder = encoder

    @torch.inference_mode()
    def scores(self, histories: Histories) -> NDArray[np.float32]:
        """Scores (B, n_items)."""
        rows = [histories[user] for user in range(len(histories))]
        item_ids, key_mask = map(torch.from_numpy, pad(rows, self._encoder.config.max_length))
        everything = torch.arange(self._encoder.n_items).expand(len(rows), -1)
        scores: NDArray[np.float32] = self._encoder.score(item_ids, key_mask, everything)[0].numpy()
        return scores


def attention(
    data: Annotated[Path, typer.Option(help="The MSNBC clicks.")] = Path(
        "../shared/data/msnbc990928.seq"
    ),
    visitors: Annotated[int, typer.Option(help="Read; 2 of 5 are learned from.")] = 50_000,
    epochs: Annotated[int, typer.Option(help="Of each training.")] = 15,
    rounds: Annotated[int, typer.Option(help="Timings of each kind and shape.")] = 101,
    write: Annotated[bool, typer.Option(help="Keep the figures.")] = True,
) -> None:
    """Train, export, serve and time all 16 kinds of attention."""
    with (
        tempfile.TemporaryDirectory() as folder,
        ProcessPoolExecutor(2, get_context("spawn")) as pool,
    ):
        place = Path(folder)
        recipes = {kind: recipe_of(kind, visitors, epochs) for kind in KINDS}
        jobs = {
            kind: pool.submit(train, kind, recipe, data, place) for kind, recipe in recipes.items()
        }
        others = [pool.submit(parity, kind, heads) for kind in KINDS for heads in (1, 4)]
        trained = {}
        for kind, job in jobs.items():
            trained[kind] = job.result()
            typer.echo(f"{kind.name}: {trained[kind].embedding.mean:.4f}")
        worst = max(*(job.result() for job in others), *(t.parity for t in trained.values()))
        histories, _ = load_data(recipes[KINDS[0]], data)
        cases = split(histories, recipes[KINDS[0]].data).test
        differences = over_http(place, cases)
        milliseconds = timings(place / "artifacts", rounds)
    served = sum(difference <= TOLERANCE for difference in differences.values())
    table = _table(trained, milliseconds, len(cases.targets), epochs, visitors)
    typer.echo(f"{table}\nserved {served}, over HTTP {max(differences.values()):.1e}, {worst:.1e}")
    if write:
        record("attention_kinds_served", served, 16, COMMAND)
        record("attention_worst_parity", worst, TOLERANCE, COMMAND)
        record_table("attention-kinds", table, [PAGE])


def recipe_of(kind: Kind, visitors: int, epochs: int) -> Recipe:
    """The same budget for every kind."""
    return Recipe(
        name=kind.name,
        data=DataRecipe(format="msnbc", split="held_out_users", held_out_share=0.3, limit=visitors),
        encoder=kind.config(heads=2),
        training=TrainingRecipe(
            epochs=epochs, patience=epochs, learning_rate=3e-3, max_batch_tokens=4096
        ),
    )


def train(kind: Kind, recipe: Recipe, data: Path, place: Path) -> Trained:
    """Trains, evaluates and exports one kind; runs in a process of its own."""
    _one_quiet_thread()
    run = place / "runs" / kind.name
    histories, fact = load_data(recipe, data)
    parts: Split = split(histories, recipe.data)
    begin(run, recipe, histories, fact)
    result = train_encoder(recipe, parts, run, progress=False)
    encoder = load_encoder(recipe.encoder, histories.n_items, run)
    artifact = export_run(run, kind.name, "1", place / "artifacts")
    return Trained(
        result.parameters,
        artifact.manifest.parity.worst_absolute_difference,
        _ndcg(EncoderScorer(encoder), parts.test),
        _ndcg(CandidateScorer(encoder), parts.test) if encoder.candidates is not None else None,
    )


def parity(kind: Kind, heads: int) -> float:
    """The largest difference from PyTorch with another number of heads, every parameter random.

    Small, as in tests/export/test_parity.py: unscaled products of 32 random features put PyTorch in
    float32 up to 4e-5 away from its own float64, and no runtime can be closer than that.
    """
    _one_quiet_thread()
    torch.manual_seed(0)
    config = replace(kind.config(heads), width=16, blocks=1, max_length=12)
    encoder = UserEncoder(config, n_items=17).eval()
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    with tempfile.TemporaryDirectory() as folder:
        cases = compare(encoder, Path(folder), export_graphs(encoder, Path(folder)))
    return max(case.worst_absolute_difference for case in cases)


def over_http(place: Path, cases: Cases) -> dict[Kind, float]:
    """One service with all kinds: the largest difference of its answers from PyTorch's."""
    rows = [cases.histories[user] for user in range(ASKED)]
    names = cases.histories.item_ids
    asked = [[names[row] for row in history] for history in rows]
    with (
        running_service(place / "artifacts") as address,
        httpx.Client(base_url=address, timeout=60) as service,
    ):
        return {kind: _difference(service, kind, place, asked, rows) for kind in KINDS}


def _difference(
    service: httpx.Client,
    kind: Kind,
    place: Path,
    asked: list[list[str | int]],
    rows: list[NDArray[np.int32]],
) -> float:
    config = kind.config(heads=2)
    artifact = open_artifact(place / "artifacts" / kind.name / "1")
    encoder = load_encoder(config, artifact.manifest.n_items, place / "runs" / kind.name)
    item_ids, key_mask = map(torch.from_numpy, pad(rows, config.max_length))
    body: dict[str, object] = {"model": kind.name, "histories": asked}
    with torch.no_grad():
        embeddings, weights = encoder.encode(item_ids, key_mask)
    users = _post(service, "/v1/encode", body | {"attention": "pooled"})
    worst = _worst(users, "embedding", embeddings, weights[..., 1:])
    if encoder.candidates is None:
        return worst
    everything = torch.arange(encoder.n_items).expand(len(rows), -1)
    with torch.no_grad():
        scores, weights = encoder.score(item_ids, key_mask, everything)
    users = _post(service, "/v1/score", body | {"candidates": artifact.item_ids, "attention": True})
    return max(worst, _worst(users, "scores", scores, weights))


def _post(service: httpx.Client, path: str, body: dict[str, object]) -> list[dict[str, Any]]:
    users: list[dict[str, Any]] = service.post(path, json=body).raise_for_status().json()["users"]
    return users


def _worst(users: list[dict[str, Any]], field: str, values: Tensor, weights: Tensor) -> float:
    """The largest difference of any number or weight; weights (B, ..., L) without start token."""
    differences = [
        difference
        for user, expected, row in zip(users, values, weights, strict=True)
        for difference in (
            np.abs(user[field] - expected.numpy()),
            np.abs(user["attention"]["weights"] - row[..., : user["used"]].numpy()),
        )
        if difference.size  # an empty history has no clicks to weigh
    ]
    return float(max(difference.max() for difference in differences))


def timings(artifacts: Path, rounds: int) -> dict[Kind, list[float]]:
    """Median milliseconds at every shape, on one thread, the kinds taking turns."""
    jobs = {}
    for kind in KINDS:
        graph = "embedding" if kind.attention == "self" else "score"
        session = _session(artifacts / kind.name / "1" / f"{graph}.onnx")
        for batch, length in SHAPES:
            feeds: dict[str, NDArray[np.generic]] = {
                "item_ids": np.arange(batch * length).reshape(batch, length) % 17,
                "key_mask": np.ones((batch, length), np.bool_),
            }
            if graph == "score":
                feeds["candidate_ids"] = np.tile(np.arange(CANDIDATES), (batch, 1))
            jobs[kind, batch] = lambda session=session, feeds=feeds: session.run(None, feeds)
    medians = interleaved(jobs, rounds)
    return {kind: [medians[kind, batch] for batch, _ in SHAPES] for kind in KINDS}


def interleaved(jobs: Mapping[Key, Callable[[], object]], rounds: int) -> dict[Key, float]:
    """Median milliseconds of each job, each run once a round, so that slow moments hit all."""
    seconds: dict[Key, list[float]] = {key: [] for key in jobs}
    for number in range(rounds + 3):
        for key, job in jobs.items():
            started = time.perf_counter()
            job()
            if number >= 3:  # the first runs allocate
                seconds[key].append(time.perf_counter() - started)
    return {key: 1000 * statistics.median(values) for key, values in seconds.items()}


def _table(
    trained: Mapping[Kind, Trained],
    milliseconds: Mapping[Kind, list[float]],
    cases: int,
    epochs: int,
    visitors: int,
) -> str:
    about = (
        f"MSNBC, the first {visitors:,} visitors: {epochs} epochs on 40 % of them, NDCG@10 of "
        f"{cases:,} held-out newest clicks with every section ranked, ± a standard error. "
        "Width 32, 2 blocks, 2 heads. Milliseconds: the median of one call on one thread of ONNX "
        f"Runtime at (B, L), of the embedding graph, or of the score graph with {CANDIDATES} "
        f"candidates a history. Written by `{COMMAND}`."
    )
    head = (
        "| compared | similarity | normalisation | parameters | NDCG@10 | by candidate scores "
        "| ms (1, 50) | ms (32, 50) |\n| --- | --- | --- | ---: | ---: | ---: | ---: | ---: |"
    )
    rows = [
        f"| {kind.attention} | {kind.similarity} | {kind.normalisation} | {fact.parameters:,} "
        f"| {_shown(fact.embedding)} | {_shown(fact.candidates)} "
        f"| {milliseconds[kind][0]:.2f} | {milliseconds[kind][1]:.1f} |"
        for kind, fact in trained.items()
    ]
    return "\n".join(["## All kinds on the same clicks", "", about, "", head, *rows, ""])


def _shown(estimate: Estimate | None) -> str:
    return f"{estimate.mean:.4f} ± {estimate.standard_error:.4f}" if estimate else ""


def _ndcg(scorer: EncoderScorer | CandidateScorer, cases: Cases) -> Estimate:
    return evaluate_scorer(scorer, cases, remove_seen=False).metrics.estimates["NDCG@10"]


def _session(path: Path) -> onnxruntime.InferenceSession:
    """As the service opens it: one thread, no spinning."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _one_quiet_thread() -> None:
    torch.set_num_threads(1)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
