"""What products in 8 bits give: their speed, and what becomes of the embeddings.

Of the kept run of ml-1m, seed 0, exported both ways: its films are long histories, where it pays.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray

from bench import loads
from bench.news import ArtifactScorer
from bench.quality import DATA, RECIPES
from bench.results import record, record_table
from bench.trained import seeded, trained
from export.run import export_run
from model.histories import Histories, pad
from model.metrics import evaluate_scorer
from service.artifact import Artifact, open_artifact
from service.session import open_session
from service.subnormals import flushed_subnormals

PAGE = Path(__file__).parents[1] / "docs" / "decisions" / "0008-int8.md"
COMMAND = "python -m bench int8"
SHAPES = ((1, 3), (1, 50), (1, 200), (32, 50), (32, 200))
Floats = NDArray[np.float32]


def int8(
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; medians count.")] = 15,
    data: Annotated[Path, typer.Option(help="The clicks of ml-1m.")] = DATA / "ml-1m.txt",
) -> None:
    """Export ml-1m in fp32 and in 8 bits, and compare speed, embeddings and ranking."""
    run = trained(seeded(RECIPES / "ml-1m.toml", 0, None), data)
    with tempfile.TemporaryDirectory() as folder:
        artifacts = [
            open_artifact(
                export_run(run.run, name, "1", Path(folder), int8=name == "int8", data=data)[0]
            )
            for name in ("fp32", "int8")
        ]
        times = {shape: _times(artifacts, shape, rounds) for shape in SHAPES}
        ndcg = [
            evaluate_scorer(
                ArtifactScorer(artifact), run.split.test, run.recipe.data.remove_seen
            ).metrics["NDCG@10"]
            for artifact in artifacts
        ]
        histories = run.split.test.histories.select(np.arange(1024))
        exact, rounded = (_embed(artifact, histories) for artifact in artifacts)
        alone = _embed(artifacts[1], histories, batch=1)
    norms = np.linalg.norm(exact, axis=1) * np.linalg.norm(rounded, axis=1)
    cosine = float(((exact * rounded).sum(1) / norms).mean())
    moved = float(np.abs(alone - rounded).max())
    record("int8_speedup", round(times[32, 50][0] / times[32, 50][1], 3), None, COMMAND)
    record("int8_cosine", round(cosine, 6), None, COMMAND)
    record("int8_moved_by_batch_mates", round(moved, 7), 1e-5, COMMAND)
    record("int8_ndcg10_lost", round(ndcg[0] - ndcg[1], 5), 0.001, COMMAND)
    lines = ["## int8 beside fp32", "", "| (B, L) | fp32, ms | int8, ms |", "| --- | ---: | ---: |"]
    lines += [f"| {shape} | {a:.3f} | {b:.3f} |" for shape, (a, b) in times.items()]
    about = (
        f"ml-1m, seed 0: test NDCG@10 over {len(run.split.test.targets):,} users {ndcg[0]:.4f} in "
        f"fp32 and {ndcg[1]:.4f} in int8. Of 1,024 users, cosine {cosine:.6f}; the same history "
        f"alone and in a batch of 256 differs by up to {moved:.1e} in int8. Written by `{COMMAND}`."
    )
    lines += ["", about, ""]
    typer.echo("\n".join(lines))
    record_table("int8", "\n".join(lines), [PAGE])


def _times(artifacts: list[Artifact], shape: tuple[int, int], rounds: int) -> tuple[float, float]:
    """Median milliseconds of both, in interleaved rounds."""
    sessions = [open_session(artifact, "embedding") for artifact in artifacts]
    n_items = artifacts[0].manifest.n_items
    rows = loads.of_lengths([shape[1]] * shape[0], n_items)
    item_ids, key_mask = pad([np.array(row, np.int32) for row in rows], shape[1])
    taken: tuple[list[float], list[float]] = ([], [])
    repeats = max(1, 2000 // (shape[0] * shape[1]))
    with flushed_subnormals():  # as a worker does
        for _ in range(rounds):
            for session, times in zip(sessions, taken, strict=True):
                started = time.perf_counter()
                for _ in range(repeats):
                    session.run(None, {"item_ids": item_ids, "key_mask": key_mask})
                times.append((time.perf_counter() - started) / repeats * 1000)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _embed(artifact: Artifact, histories: Histories, batch: int = 256) -> Floats:
    session = open_session(artifact, "embedding")
    parts = []
    for start in range(0, len(histories), batch):
        users = range(start, min(start + batch, len(histories)))
        item_ids, key_mask = pad([histories[user] for user in users], 200)
        parts.append(session.run(None, {"item_ids": item_ids, "key_mask": key_mask})[0])
    return np.concatenate(parts)
