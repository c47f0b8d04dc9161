"""PyTorch against ONNX Runtime over a grid of shapes, with every kind of history in it."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from export.errors import ParityError
from export.graphs import (
    COLUMN,
    OUTPUTS,
    SCORE_OUTPUTS,
    PlainEncoder,
    ScoreGraph,
    as_arguments,
)
from export.next_clicks import can_keep
from model.network.attention import PaddingSide, mask_from_lengths
from model.network.encoder import UserEncoder
from persona.artifact.format import GraphFact, GraphName, ParityFact
from persona.engine.continuing import next_feeds

# Largest absolute difference of any output whose numbers stay below 1; where they do not, of the
# largest of them: what is lost in a sum is lost of its largest terms.
TOLERANCE = 1e-5
BATCHES = (1, 2, 7, 16)
TODAY = 1_700_000_000  # in Unix seconds, which float32 would round to minutes
MISSING = 0.2  # of the numbers
SIDES: tuple[PaddingSide, ...] = ("left", "right")

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Case:
    """One comparison: a graph at a shape."""

    graph: GraphName
    batch: int
    length: int
    padding_side: PaddingSide
    worst_absolute_difference: float
    largest_output: float  # absolute


def compare(encoder: UserEncoder, folder: Path, facts: dict[GraphName, GraphFact]) -> list[Case]:
    """Runs every graph at every shape of the grid.

    Each batch holds full, partial and empty histories, unknown items, and random ids under the
    padding.

    Raises:
        ParityError: an output differs by more than the tolerance, or is not finite.
    """
    sessions = {
        name: onnxruntime.InferenceSession(folder / fact.file, providers=["CPUExecutionProvider"])
        for name, fact in facts.items()
    }
    cases = []
    for shape in _grid(encoder.config.max_length):
        inputs = _inputs(encoder, *shape)
        expected = _expected(encoder, inputs)
        for name, fact in facts.items():
            if name == "embedding_next":
                continue
            feeds = {tensor.name: inputs[tensor.name].numpy() for tensor in fact.inputs}
            names = [tensor.name for tensor in fact.outputs]
            actual = dict(zip(names, sessions[name].run(names, feeds), strict=True))
            known = [output for output in names if output in expected]
            worst = max(difference(actual[output], expected[output]) for output in known)
            largest = max(float(np.abs(expected[output]).max()) for output in known)
            cases.append(Case(name, *shape, worst, largest))
        if can_keep(encoder.config):
            whole = expected["user_embedding"][inputs["key_mask"].any(1).numpy()]
            worst = difference(_in_two(sessions, inputs, encoder.config.heads), whole)
            largest = float(np.abs(whole).max())
            cases.append(Case("embedding_next", *shape, worst, largest))
    return cases


def _in_two(
    sessions: Mapping[GraphName, onnxruntime.InferenceSession],
    inputs: Mapping[str, Tensor],
    heads: int,
) -> np.ndarray:
    """The embeddings of all histories that have a click, computed in two parts.

    The parts are of all lengths that there can be, of which the first may be empty.
    """
    item_ids, key_mask = (inputs[name].numpy() for name in ("item_ids", "key_mask"))
    item_ids, key_mask = item_ids[key_mask.any(1)], key_mask[key_mask.any(1)]
    order = np.argsort(~key_mask, axis=1, kind="stable")  # padding to the right
    item_ids = np.take_along_axis(item_ids, order, 1)
    real, index = key_mask.sum(1), np.arange(key_mask.shape[1])
    n_new = 1 + np.arange(len(real)) % real
    before = real - n_new
    feeds = {"item_ids": item_ids, "key_mask": index < before[:, None]}
    _, kept = sessions["embedding_first"].run(None, feeds)  # (parts, B, 1 + L, D)
    new = np.minimum(before[:, None] + index[: n_new.max()], len(index) - 1)  # (B, N)
    following = next_feeds((1 + before).tolist(), n_new.tolist(), heads)
    feeds = {
        "item_ids": np.take_along_axis(item_ids, new, 1),
        **dict(zip(("positions", "attend", "newest"), following, strict=True)),
        **{f"kept_{part}": one[:, : 1 + before.max()] for part, one in enumerate(kept)},
    }
    embeddings: np.ndarray = sessions["embedding_next"].run(["user_embedding"], feeds)[0]
    return embeddings


def summary(cases: Sequence[Case]) -> ParityFact:
    """The comparison as the manifest holds it."""
    return ParityFact(
        tolerance=TOLERANCE,
        worst_absolute_difference=max(case.worst_absolute_difference for case in cases),
        largest_output=max(case.largest_output for case in cases),
    )


def report(cases: Sequence[Case]) -> dict[str, object]:
    """The comparison as the artifact's `parity.json` holds it."""
    return {**summary(cases).model_dump(), "cases": [asdict(case) for case in cases]}


def _grid(max_length: int) -> Iterator[tuple[int, int, PaddingSide]]:
    lengths = sorted({1, 2, 3, max_length // 2 or 1, max_length})
    yield from product(BATCHES, lengths, SIDES)


def _inputs(encoder: UserEncoder, batch: int, length: int, side: PaddingSide) -> dict[str, Tensor]:
    n_items = encoder.n_items
    generator = torch.Generator().manual_seed(1000 * batch + length)
    real = torch.randint(0, length + 1, (batch,), generator=generator)
    real[0] = length
    if batch > 1:
        real[1] = 0
    # n_items itself is the row of unknown items.
    inputs = {
        "item_ids": torch.randint(0, n_items + 1, (batch, length), generator=generator),
        "key_mask": mask_from_lengths(real, length, side),
    }
    if encoder.candidates is not None:
        inputs["candidate_ids"] = torch.randint(0, n_items, (batch, 3), generator=generator)
    if encoder.config.time != "none":
        # From bursts within a second to years, and asked both before and after the newest click.
        steps = torch.rand(batch, length, generator=generator) * 18
        inputs["times"] = TODAY + steps.exp().long().cumsum(1)
        later = torch.randint(-10, 10**8, (batch,), generator=generator)
        inputs["asked"] = inputs["times"].amax(1) + later
    return inputs | _columns(encoder, inputs["key_mask"], generator)


def _columns(
    encoder: UserEncoder, key_mask: Tensor, generator: torch.Generator
) -> dict[str, Tensor]:
    """Known and unknown categories; numbers near the mean and far from it, and missing ones."""
    found = {}
    for name, column in encoder.config.columns.items():
        if column.kind == "category":
            rows = torch.randint(0, len(column.values) + 1, key_mask.shape, generator=generator)
            found[f"{COLUMN}{name}"] = rows.where(key_mask, -1)
        else:
            spread = 3 * torch.randn(key_mask.shape, generator=generator)
            missing = torch.rand(key_mask.shape, generator=generator) < MISSING
            numbers = (column.mean + column.deviation * spread).masked_fill(missing, math.nan)
            found[f"{COLUMN}{name}"] = numbers
    return found


def _expected(encoder: UserEncoder, inputs: dict[str, Tensor]) -> Arrays:
    """PyTorch's outputs, by name."""
    arguments = as_arguments(inputs)
    of_clicks = {name: one for name, one in arguments.items() if name != "candidate_ids"}
    with torch.no_grad():
        outputs = dict(zip(OUTPUTS, PlainEncoder(encoder)(**of_clicks), strict=True))
        if encoder.candidates is not None:
            scores = ScoreGraph(PlainEncoder(encoder))(**arguments)
            outputs |= zip(SCORE_OUTPUTS, scores, strict=True)
    return {name: output.numpy() for name, output in outputs.items()}


def difference(actual: np.ndarray, expected: np.ndarray) -> float:
    """The largest absolute difference of an output from PyTorch's.

    Raises:
        ParityError: it exceeds the tolerance, or is not a number.
    """
    worst = float(np.abs(actual - expected).max())
    tolerance = TOLERANCE * max(1.0, float(np.abs(expected).max()))
    if not worst <= tolerance:  # NaN fails this too
        raise ParityError(f"ONNX Runtime and PyTorch differ by {worst}, tolerance {tolerance}")
    return worst
