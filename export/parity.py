"""PyTorch against ONNX Runtime over a grid of shapes, with every kind of history in it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from torch import Tensor

from export.errors import ParityError
from export.graphs import graph_modules
from model.attention import PaddingSide, mask_from_lengths
from model.encoder import UserEncoder
from service.artifact import GraphFact, GraphName

# Largest absolute difference of any output whose numbers stay below 1; where they do not, of the
# largest of them: what is lost in a sum is lost of its largest terms.
TOLERANCE = 1e-5
SIDES: tuple[PaddingSide, ...] = ("left", "right")


@dataclass(frozen=True)
class Case:
    """One comparison: a graph at a shape."""

    graph: GraphName
    batch: int
    length: int
    padding_side: PaddingSide
    worst_absolute_difference: float
    largest_output: float  # without its sign


def compare(encoder: UserEncoder, folder: Path, facts: dict[GraphName, GraphFact]) -> list[Case]:
    """Runs every graph at every shape of the grid.

    Each batch holds full, partial and empty histories, unknown items, and random ids under the
    padding.

    Raises:
        ParityError: an output differs by more than the tolerance, or is not finite.
    """
    cases = []
    for name, module in graph_modules(encoder).items():
        session = onnxruntime.InferenceSession(
            folder / facts[name].file, providers=["CPUExecutionProvider"]
        )
        for batch, length, side in _grid(encoder.config.max_length):
            inputs = _inputs(encoder.n_items, batch, length, side, candidates=name == "score")
            with torch.no_grad():
                expected = module(*inputs.values())
            expected = expected if isinstance(expected, tuple) else (expected,)
            actual = session.run(None, {key: value.numpy() for key, value in inputs.items()})
            worst = max(map(_worst, actual, expected))
            largest = max(float(output.abs().max()) for output in expected)
            cases.append(Case(name, batch, length, side, worst, largest))
    return cases


def report(cases: list[Case]) -> dict[str, object]:
    """The comparison as the artifact's `parity.json` holds it."""
    return {
        "tolerance": TOLERANCE,
        "worst_absolute_difference": max(case.worst_absolute_difference for case in cases),
        "largest_output": max(case.largest_output for case in cases),
        "cases": [asdict(case) for case in cases],
    }


def _grid(max_length: int) -> Iterator[tuple[int, int, PaddingSide]]:
    lengths = sorted({1, 2, 3, max_length // 2 or 1, max_length})
    yield from product((1, 2, 7, 16), lengths, SIDES)


def _inputs(
    n_items: int, batch: int, length: int, side: PaddingSide, *, candidates: bool
) -> dict[str, Tensor]:
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
    if candidates:
        inputs["candidate_ids"] = torch.randint(0, n_items, (batch, 3), generator=generator)
    return inputs


def _worst(actual: np.ndarray, expected: Tensor) -> float:
    worst = float(np.abs(actual - expected.numpy()).max())
    tolerance = TOLERANCE * max(1.0, float(expected.abs().max()))
    if not worst <= tolerance:  # NaN fails this too
        raise ParityError(f"ONNX Runtime and PyTorch differ by {worst}, tolerance {tolerance}")
    return worst
