"""PyTorch against ONNX Runtime for all 48 attentions, every graph, over a grid of shapes.

One block each, so that 48 exports end within minutes; test_kinds_end_to_end.py has two.
"""

from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.graphs import export_graphs, graph_modules, to_onnx
from export.parity import TOLERANCE, compare
from model.attention import mask_from_lengths
from model.encoder import EncoderConfig
from service.artifact import GraphFact, TensorFact
from tests.attention_kinds import ALL, Kind, each
from tests.conftest import random_encoder

N_ITEMS = 9
BATCHES, LENGTHS, SIDES = (1, 2, 7, 16), (1, 2, 3, 6, 12), ("left", "right")


@pytest.mark.timeout(600)  # an export takes seconds, many of them on a busy machine
@each(ALL)
def test_onnx_runtime_equals_pytorch_over_the_grid(kind: Kind, tmp_path: Path) -> None:
    # With larger parameters the unscaled products put PyTorch itself, in float32, 1e-5 away from
    # its own float64.
    encoder = random_encoder(kind.config(blocks=1), N_ITEMS, spread=0.1)
    cases = compare(encoder, tmp_path, export_graphs(encoder, tmp_path))
    graphs = ["embedding", "attention", "attention_full"]
    if kind.attention == "source_target":
        graphs.append("score")
    assert list(graph_modules(encoder)) == graphs
    compared = [(case.graph, case.batch, case.length, case.padding_side) for case in cases]
    assert compared == list(product(graphs, BATCHES, LENGTHS, SIDES))
    assert max(case.worst_absolute_difference for case in cases) <= TOLERANCE == 1e-5


@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "changes",
    [
        {"heads": 1, "gated": True, "feed_forward": 2, "embedding_scale": 4.0},
        {"heads": 1, "gated": True, "norm": "post"},
        {"heads": 2, "norm": "post", "positions": "learned"},
        {"heads": 4, "similarity": "dot", "attention": "source_target"},
        {"heads": 2, "similarity": "general"},
        {"heads": 2, "normalisation": "weighted_softmax"},
        {"heads": 2, "pooling": "additive"},
        {"heads": 2, "positions": "none", "pooling": "mean"},
    ],
    ids=lambda changes: " ".join(f"{value}" for value in changes.values()),
)
def test_rotary_positions_and_none_at_all_are_served_too(
    changes: dict[str, object], tmp_path: Path
) -> None:
    sizes = {"width": 16, "blocks": 2, "max_length": 12}
    config = EncoderConfig(**({"positions": "rotary"} | sizes | changes))  # type: ignore[arg-type]  # by name
    encoder = random_encoder(config, N_ITEMS, spread=0.1)
    cases = compare(encoder, tmp_path, export_graphs(encoder, tmp_path))
    assert {case.padding_side for case in cases} == set(SIDES)
    assert {case.length for case in cases} == set(LENGTHS)


@pytest.mark.parametrize(
    ("changes", "operators"),
    [
        ({"positions": "learned"}, {"Attention"}),
        ({"positions": "rotary"}, {"MultiHeadAttention", "RotaryEmbedding"}),
        ({"positions": "rotary", "similarity": "general"}, set()),
        ({"similarity": "additive"}, set()),
    ],
    ids=["learned", "rotary", "rotary general", "additive"],
)
def test_products_are_computed_by_one_operator_of_onnx_runtime(
    changes: dict[str, object], operators: set[str], tmp_path: Path
) -> None:
    sizes = {"width": 16, "blocks": 2, "max_length": 12}
    encoder = random_encoder(EncoderConfig(**sizes, **changes), N_ITEMS)  # type: ignore[arg-type]  # by name
    export_graphs(encoder, tmp_path)
    nodes = onnx.load(tmp_path / "embedding.onnx", load_external_data=False).graph.node
    assert {node.op_type for node in nodes if node.domain == "com.microsoft"} == operators


def test_where_outputs_are_large_the_tolerance_is_a_share_of_the_largest(tmp_path: Path) -> None:
    encoder = random_encoder(ALL[0].config(blocks=1), N_ITEMS, spread=0.1)
    with torch.no_grad():
        encoder.final_norm.weight.mul_(1e4)
    cases = compare(encoder, tmp_path, export_graphs(encoder, tmp_path))
    assert max(case.worst_absolute_difference for case in cases) > TOLERANCE
    for case in cases:
        assert case.worst_absolute_difference <= TOLERANCE * max(1, case.largest_output)


class LeftMask(nn.Module):
    """The mask of left-padded rows as a graph of its own."""

    def forward(self, lengths: Tensor, padded: Tensor) -> Tensor:
        """(B,), (B, L) to (B, L)."""
        return mask_from_lengths(lengths, padded.shape[1], "left")


@pytest.mark.parametrize("length", [1, 2, 5, 12])
def test_a_left_mask_exports_for_other_lengths_than_the_example(
    length: int, left_mask: onnxruntime.InferenceSession
) -> None:
    lengths = np.arange(length + 1)
    padded = np.zeros((length + 1, length), np.int64)
    (mask,) = left_mask.run(None, {"lengths": lengths, "padded": padded})
    assert mask.sum(1).tolist() == lengths.tolist()
    assert mask[:, -1].tolist() == [n > 0 for n in lengths]


@pytest.fixture(scope="module")
def left_mask() -> onnxruntime.InferenceSession:
    fact = GraphFact(
        file="left.onnx",
        inputs=[
            TensorFact(name="lengths", datatype="INT64", shape=[-1]),
            TensorFact(name="padded", datatype="INT64", shape=[-1, -1]),
        ],
        outputs=[TensorFact(name="mask", datatype="BOOL", shape=[-1, -1])],
    )
    example = {"lengths": torch.tensor([2, 3]), "padded": torch.zeros(2, 3, dtype=torch.int64)}
    return onnxruntime.InferenceSession(
        to_onnx(LeftMask().eval(), fact, example).SerializeToString()
    )
