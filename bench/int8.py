"""What int8 would give: the speed of products in 8 bits, and what becomes of the embeddings.

ONNX Runtime's dynamic quantisation scales the activations of a whole batch by its largest value,
so it is also measured how far batch-mates move an embedding. docs/decisions/0008-int8.md has the
consequence.
"""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import onnx
import onnxruntime
import typer
from numpy.typing import NDArray
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.onnx_model import ONNXModel

from bench import encoders, loads
from bench.results import record, record_table
from model.histories import Histories, Int, pad
from model.metrics import gains, ranks
from model.recipe import Recipe
from model.run import load_data, split
from service.artifact import open_artifact

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "decisions" / "0008-int8.md"
COMMAND = "python -m bench int8"
SHAPES = ((1, 10), (1, 50), (32, 50), (32, 200))
Floats = NDArray[np.float32]


def int8(
    rounds: Annotated[int, typer.Option(help="Interleaved rounds; medians count.")] = 15,
    data: Annotated[Path, typer.Option(help="The MSNBC clicks.")] = Path(
        "../shared/data/msnbc990928.seq"
    ),
) -> None:
    """Quantise the embedding graphs of the bench encoder and of `news`, and compare with fp32."""
    with tempfile.TemporaryDirectory() as folder:
        fast = _pair(encoders.artifacts() / encoders.NAME / "1", Path(folder) / "fast.onnx")
        times = {shape: _times(*fast, shape, rounds) for shape in SHAPES}
        shipped = ROOT / "artifacts" / "news" / "1"
        recipe = Recipe.model_validate(open_artifact(shipped).manifest.training["recipe"])
        cases = split(load_data(recipe, data)[0], recipe.data).test
        news = _pair(shipped, Path(folder) / "news.onnx")
        exact, rounded = (_embed(session, cases.histories) for session in news)
        alone = _embed(news[1], cases.histories.select(np.arange(200)), batch=1)
    table = np.asarray(open_artifact(shipped).item_embeddings()[:-1])
    ndcg = [_ndcg(vectors @ table.T, cases.targets) for vectors in (exact, rounded)]
    cosine = float(_cosines(exact, rounded).mean())
    moved = float(np.abs(alone - rounded[:200]).max())
    speedup = times[32, 50][0] / times[32, 50][1]
    record("int8_speedup", round(speedup, 3), None, COMMAND)
    record("int8_cosine", round(cosine, 6), None, COMMAND)
    record("int8_moved_by_batch_mates", round(moved, 5), 1e-5, COMMAND)
    lines = ["## int8 beside fp32", "", "| (B, L) | fp32, ms | int8, ms |", "| --- | ---: | ---: |"]
    lines += [f"| {shape} | {a:.3f} | {b:.3f} |" for shape, (a, b) in times.items()]
    about = (
        f"`news`, {len(exact):,} held-out visitors: cosine {cosine:.6f}, NDCG@10 {ndcg[0]:.4f} in "
        f"fp32 and {ndcg[1]:.4f} in int8. The same history alone and in a batch of 256 differs "
        f"by up to {moved:.4f} in int8. Written by `{COMMAND}`."
    )
    lines += ["", about, ""]
    typer.echo("\n".join(lines))
    record_table("int8", "\n".join(lines), [PAGE])


def _pair(
    artifact: Path, quantised: Path
) -> tuple[onnxruntime.InferenceSession, onnxruntime.InferenceSession]:
    source = artifact / "embedding.onnx"
    model = ONNXModel(onnx.load(source))
    model.replace_gemm_with_matmul()  # products of matrices are all that it quantises
    quantize_dynamic(
        model.model, quantised, op_types_to_quantize=["MatMul"], weight_type=QuantType.QInt8
    )
    return _session(source), _session(quantised)


def _session(path: Path) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _times(
    exact: onnxruntime.InferenceSession,
    rounded: onnxruntime.InferenceSession,
    shape: tuple[int, int],
    rounds: int,
) -> tuple[float, float]:
    """Median milliseconds of both, in interleaved rounds."""
    histories = [np.array(row, np.int32) for row in loads.of_lengths([shape[1]] * shape[0])]
    item_ids, key_mask = pad(histories, shape[1])
    taken: tuple[list[float], list[float]] = ([], [])
    repeats = max(1, 2000 // (shape[0] * shape[1]))
    for _ in range(rounds):
        for session, times in zip((exact, rounded), taken, strict=True):
            started = time.perf_counter()
            for _ in range(repeats):
                session.run(None, {"item_ids": item_ids, "key_mask": key_mask})
            times.append((time.perf_counter() - started) / repeats * 1000)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _embed(session: onnxruntime.InferenceSession, histories: Histories, batch: int = 256) -> Floats:
    parts = []
    for start in range(0, len(histories), batch):
        users = range(start, min(start + batch, len(histories)))
        item_ids, key_mask = pad([histories[user] for user in users], 200)
        parts.append(session.run(None, {"item_ids": item_ids, "key_mask": key_mask})[0])
    return np.concatenate(parts)


def _cosines(one: Floats, other: Floats) -> Floats:
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    cosines: Floats = (one * other).sum(1) / norms
    return cosines


def _ndcg(scores: Floats, targets: Int) -> float:
    return float(gains(ranks(scores, targets), "NDCG", 10).mean())
