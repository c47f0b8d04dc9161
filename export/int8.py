"""Products in 8 bits: weights rounded once, activations by scales that calibration has fixed.

A scale that belongs to the artifact, and not to the batch, leaves a history the same embedding
alone and in any company. Rounded is what sees every position of a history; the last block, read at
one position, is not. Whether enough is left of the embeddings is measured before they are shipped:
`check` holds the limits.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from export.errors import GateError
from model.encoder import UserEncoder
from model.histories import Cases, Histories, pad
from model.metrics import gains, ranks

MIN_COSINE = 0.999  # mean over the cases
MAX_NDCG10_LOST = 0.001
CALIBRATION = 512  # histories at most
# Of a difference in NDCG@10: over 4,096 of MovieLens-1M's cases its standard error was .00065, two
# thirds of the limit, so that chance had a say.
CASES = 16_384
# 7 bits: where the processor has no VNNI, two products of 8 bits overflow their 16-bit sum.
LARGEST = 64

Bounds = tuple[float, float]  # of what goes into a layer, least and most


@dataclass(frozen=True)
class Gates:
    """What rounding does to the embeddings of cases that calibration did not see."""

    cosine: float  # mean, of rounded and unrounded embeddings
    ndcg10: float  # over the whole catalogue
    ndcg10_in_fp32: float
    ndcg10_standard_error: float  # of the difference, paired by case
    cases: int


@dataclass(frozen=True)
class Int8:
    """What rounding is calibrated on, and what it is checked on."""

    histories: Histories
    cases: Cases
    remove_seen: bool


class Int8Linear(nn.Module):
    """A layer over (..., K) whose products are of 8 bits, summed in 32; for export alone.

    Input in 256 steps between its bounds; weights in steps of their own for each output.
    """

    def __init__(self, layer: nn.Linear, bounds: Bounds) -> None:
        super().__init__()
        low, high = min(bounds[0], 0.0), max(bounds[1], 1e-6)
        scale = (high - low) / 255
        weight = layer.weight.detach()  # (N, K)
        steps = weight.abs().amax(1).clamp_min(1e-12) / LARGEST  # (N,)
        self.bias = layer.bias.detach()
        self.input_scale = torch.tensor(scale)
        self.input_zero = torch.tensor(round(-low / scale), dtype=torch.uint8)
        self.weight = (weight / steps[:, None]).round().to(torch.int8).T.contiguous()  # (K, N)
        self.weight_scale = steps
        self.weight_zero = torch.zeros(len(steps), dtype=torch.int8)
        self.rounded_bias = (self.bias / (steps * scale)).round().to(torch.int32)

    def round(self, x: Tensor) -> Tensor:
        """The input in 8 bits."""
        rounded: Tensor = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            (x, self.input_scale, self.input_zero),
            dtype=torch.uint8,
            shape=x.shape,
            version=19,
        )
        return rounded

    def forward(self, x: Tensor) -> Tensor:
        """(..., K) to (..., N)."""
        n = self.weight.shape[1]
        flat = x.reshape(-1, x.shape[-1])
        inputs = (self.round(flat), self.input_scale, self.input_zero)
        weights = (self.weight, self.weight_scale, self.weight_zero, self.rounded_bias)
        out: Tensor = torch.onnx.ops.symbolic(
            "com.microsoft::QGemm",
            (*inputs, *weights),
            dtype=torch.float32,
            shape=(flat.shape[0], n),
            version=1,
        )
        return out if x.ndim == 2 else out.reshape(*x.shape[:-1], n)


def calibrate(encoder: UserEncoder, histories: Histories) -> dict[str, Bounds]:
    """The bounds of what goes into each layer of the blocks, by the layer's name."""
    rng = np.random.default_rng(0)
    chosen = rng.permutation(len(histories))[:CALIBRATION]
    with _watched(encoder) as bounds, torch.no_grad():
        for start in range(0, len(chosen), 32):
            rows = [histories[user] for user in chosen[start : start + 32]]
            encoder.states(*map(torch.from_numpy, pad(rows, encoder.config.max_length)))
    return bounds


@contextmanager
def _watched(encoder: UserEncoder) -> Iterator[dict[str, Bounds]]:
    bounds: dict[str, Bounds] = {}

    def watch(name: str) -> None:
        def see(_layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            low, high = bounds.get(name, (0.0, 0.0))
            bounds[name] = min(low, float(inputs[0].min())), max(high, float(inputs[0].max()))

        hooks.append(layers[name].register_forward_pre_hook(see))

    layers = {
        name: layer
        for name, layer in encoder.blocks.named_modules()
        if isinstance(layer, nn.Linear)
    }
    hooks: list[torch.utils.hooks.RemovableHandle] = []
    for name in layers:
        watch(name)
    try:
        yield bounds
    finally:
        for hook in hooks:
            hook.remove()


def round_blocks(blocks: nn.ModuleList, bounds: Mapping[str, Bounds], n_full: int) -> None:
    """Replaces the layers of the first `n_full` served blocks.

    Raises:
        GateError: there is no such block.
    """
    if not n_full:
        raise GateError("8 bits have nothing to round: the only block is read at one position")
    for name, layer in list(blocks.named_modules()):
        # One product of queries, keys and values has the input of any of them.
        found = bounds.get(name.replace(".joint", ".attention.query"))
        if found and isinstance(layer, nn.Linear) and int(name.partition(".")[0]) < n_full:
            parent, _, child = name.rpartition(".")
            setattr(blocks.get_submodule(parent), child, Int8Linear(layer, found))


def check(
    exact: Path, rounded: Path, table: NDArray[np.float32], max_length: int, data: Int8
) -> Gates:
    """Compares two embedding graphs over validation cases, through ONNX Runtime.

    Args:
        exact: the graph in fp32.
        rounded: the graph in 8 bits.
        table: item embeddings (n_items, D).
        max_length: newest clicks that are looked at.
        data: the cases.

    Raises:
        GateError: too little is left, and the message says how much and the limit; or there is
            no case to tell by.
    """
    if not len(data.cases.targets):
        raise GateError("8 bits have to be checked on validation cases, and the clicks give none")
    chosen = np.random.default_rng(1).permutation(len(data.cases.targets))[:CASES]
    cases = Cases(data.cases.histories.select(chosen), data.cases.targets[chosen])
    before, after = (_embeddings(path, cases.histories, max_length) for path in (exact, rounded))
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosine = float(((before * after).sum(1) / norms).mean())
    gains_before, gains_after = (
        _ndcg10(vectors, table, cases, remove_seen=data.remove_seen) for vectors in (before, after)
    )
    ndcg_before, ndcg_after = float(gains_before.mean()), float(gains_after.mean())
    error = float((gains_before - gains_after).std()) / len(chosen) ** 0.5
    if cosine < MIN_COSINE or ndcg_before - ndcg_after > MAX_NDCG10_LOST:
        raise GateError(
            f"8 bits leave a cosine of {cosine:.5f} (least {MIN_COSINE}) and NDCG@10 "
            f"{ndcg_after:.4f} in place of {ndcg_before:.4f} (at most {MAX_NDCG10_LOST} less; "
            f"{len(chosen):,} cases, standard error {error:.5f})"
        )
    return Gates(cosine, ndcg_after, ndcg_before, error, len(chosen))


def as_facts(gates: Gates) -> dict[str, object]:
    """As the manifest holds them."""
    limits = {"min_cosine": MIN_COSINE, "max_ndcg10_lost": MAX_NDCG10_LOST}
    return asdict(gates) | limits | {"calibration_histories": CALIBRATION}


def _embeddings(graph: Path, histories: Histories, max_length: int) -> NDArray[np.float32]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    order = np.argsort(histories.lengths, kind="stable")
    parts = []
    for start in range(0, len(order), 64):
        rows = [histories[user] for user in order[start : start + 64]]
        item_ids, key_mask = pad(rows, max_length)
        parts.append(session.run(None, {"item_ids": item_ids, "key_mask": key_mask})[0])
    found = np.concatenate(parts)
    embeddings = np.empty_like(found)
    embeddings[order] = found
    return embeddings


def _ndcg10(
    embeddings: NDArray[np.float32], table: NDArray[np.float32], cases: Cases, *, remove_seen: bool
) -> NDArray[np.float64]:
    """Of each case."""
    parts = []
    for start in range(0, len(embeddings), 512):
        rows = np.arange(start, min(start + 512, len(embeddings)))
        seen = cases.histories.select(rows) if remove_seen else None
        parts.append(
            gains(ranks(embeddings[rows] @ table.T, cases.targets[rows], seen), "NDCG", 10)
        )
    return np.concatenate(parts)
