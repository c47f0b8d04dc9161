"""PyTorch against ONNX Runtime: every graph, over a grid of shapes.

A few encoders hold every choice at least once; with `make test-all` all 48 attentions follow.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from export.errors import ParityError
from export.graphs import export_graphs, to_onnx
from export.next_clicks import can_keep
from export.parity import BATCHES, SIDES, TOLERANCE, Case, compare, difference
from export.served import ServedEncoder, can_rearrange
from model.network.attention import mask_from_lengths
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from persona.artifact.format import GraphFact, GraphName
from tests.attention_kinds import ALL, Kind, each
from tests.conftest import random_encoder

N_ITEMS = 9
LENGTHS = (1, 2, 3, 6, 12)
SIZES = {"width": 16, "max_length": 12}
LONG = 12  # clicks, in these tests


@dataclass(frozen=True)
class Exported:
    """An encoder, its graphs, and how they compare."""

    name: str
    encoder: UserEncoder
    folder: Path
    facts: dict[GraphName, GraphFact]
    cases: list[Case]

    def graph(self, name: GraphName) -> onnx.GraphProto:
        """A graph without its weights."""
        return onnx.load(self.folder / self.facts[name].file, load_external_data=False).graph

    def operators(self, name: GraphName) -> set[tuple[str, str]]:
        """Domain and name of each operator of a graph."""
        return {(node.domain, node.op_type) for node in self.graph(name).node}


def config(**changes: object) -> EncoderConfig:
    return EncoderConfig(**(SIZES | changes))  # type: ignore[arg-type]  # by name


# Every similarity, normalisation, pooling, position and norm; rearranged for serving or not; with
# and without candidates; with and without a graph for long histories.
ENCODERS = {
    "learned": config(
        attention="source_target",
        similarity="general",
        normalisation="weighted_softmax",
        pooling="mean",
        norm="post",
        heads=4,
        blocks=1,
        max_length=6,
    ),
    "rotary": config(positions="rotary", heads=1, gated=True, embedding_scale=4.0),
    "no positions": config(positions="none", similarity="dot", blocks=1),
    "additive": config(similarity="additive", pooling="additive", blocks=1),
    "rotary, general": config(
        attention="source_target", similarity="general", positions="rotary", blocks=1
    ),
    "gaps": config(time="gaps"),
    "buckets": config(time="buckets", positions="rotary"),
    "power": config(time="power"),
    "rotary time": config(time="rotary", positions="rotary"),
    "time of candidates": config(time="buckets", attention="source_target", pooling="mean"),
}
FUSED = {
    "learned": {"Attention"},
    "rotary": {"MultiHeadAttention", "RotaryEmbedding"},
    "no positions": set(),  # its one block is read at one position
    "additive": set(),
    "rotary, general": set(),
    "gaps": {"Attention"},
    "buckets": {"MultiHeadAttention", "RotaryEmbedding"},
    "power": {"Attention"},
    "rotary time": {"MultiHeadAttention", "RotaryEmbedding"},
    "time of candidates": set(),
}
REARRANGED = [name for name, choices in ENCODERS.items() if can_rearrange(choices)]


def export(choices: EncoderConfig, folder: Path, name: str = "") -> Exported:
    # With larger parameters the unscaled products put PyTorch itself, in float32, 1e-5 away from
    # its own float64.
    encoder = random_encoder(choices, N_ITEMS, spread=0.1)
    facts = export_graphs(encoder, folder)
    return Exported(name, encoder, folder, facts, compare(encoder, folder, facts))


@pytest.fixture(scope="module", params=ENCODERS)
def exported(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Exported]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.graphs.LONG_HISTORY", LONG)
        patch.setattr("export.graphs.LONG_PIECES", 2)
        folder = tmp_path_factory.mktemp("graphs")
        yield export(ENCODERS[request.param], folder, request.param)


def of(*names: str) -> pytest.MarkDecorator:
    """Runs a test for these encoders."""
    return pytest.mark.parametrize("exported", names, indirect=True, scope="module")


def test_onnx_runtime_equals_pytorch_over_the_grid(exported: Exported) -> None:
    assert max(case.worst_absolute_difference for case in exported.cases) <= TOLERANCE == 1e-5
    lengths = [n for n in LENGTHS if n <= exported.encoder.config.max_length]
    compared = {(case.graph, case.batch, case.length, case.padding_side) for case in exported.cases}
    assert compared == set(product(exported.facts, BATCHES, lengths, SIDES))
    assert BATCHES == (1, 2, 7, 16)
    assert set(SIDES) == {"left", "right"}


def test_batch_and_length_are_dynamic_as_the_manifest_says(exported: Exported) -> None:
    for name, fact in exported.facts.items():
        graph = exported.graph(name)
        declared = {tensor.name: tensor.shape for tensor in (*fact.inputs, *fact.outputs)}
        found = {
            value.name: [axis.dim_value or -1 for axis in value.type.tensor_type.shape.dim]
            for value in (*graph.input, *graph.output)
        }
        assert found == declared


@of("learned", "rotary, general")
def test_with_candidates_there_is_a_graph_of_scores(exported: Exported) -> None:
    assert [tensor.name for tensor in exported.facts["score"].inputs] == [
        "item_ids",
        "key_mask",
        "candidate_ids",
    ]
    assert [tensor.name for tensor in exported.facts["score"].outputs] == [
        "scores",
        "candidate_attention",
    ]


@of(*REARRANGED)
def test_the_rearranged_encoder_gives_in_pytorch_what_its_graphs_give(exported: Exported) -> None:
    item_ids = torch.arange(15).reshape(3, 5) % N_ITEMS
    key_mask = torch.arange(5) < torch.tensor([[5], [2], [0]])
    given = {"item_ids": item_ids, "key_mask": key_mask}
    if exported.encoder.config.time != "none":
        times = 1_700_000_000 + torch.arange(15).reshape(3, 5) ** 5
        given |= {"times": times, "asked": times[:, -1] + 86_400}
    with torch.no_grad():
        embedding, _, full = ServedEncoder(exported.encoder)(*given.values())
    session = onnxruntime.InferenceSession(exported.folder / "attention_full.onnx")
    feeds = {name: tensor.numpy() for name, tensor in given.items()}
    for actual, expected in zip(session.run(None, feeds), (embedding, full), strict=True):
        np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_products_are_computed_by_one_operator_of_onnx_runtime(exported: Exported) -> None:
    operators = exported.operators("embedding")
    fused = {name for domain, name in operators if domain == "com.microsoft"}
    assert fused == FUSED[exported.name]


def test_no_graph_has_the_attention_operator_of_opset_23(exported: Exported) -> None:
    """ONNX Runtime refuses it with a mask that is broadcast."""
    for graph in exported.facts:
        assert ("", "Attention") not in exported.operators(graph)


@of("rotary")
def test_long_histories_have_a_graph_of_their_own(exported: Exported) -> None:
    assert exported.facts["embedding_long"].min_length == LONG
    assert exported.facts["embedding"].min_length == 0
    fused = {"Attention", "MultiHeadAttention"}
    assert not fused & {name for _, name in exported.operators("embedding_long")}


@of("learned", "no positions", "additive")
def test_where_it_would_not_help_there_is_no_graph_for_long_histories(exported: Exported) -> None:
    assert "embedding_long" not in exported.facts


def test_where_outputs_are_large_the_tolerance_is_a_share_of_the_largest() -> None:
    expected = np.array([1000.0, 1.0])
    assert difference(expected + 9e-3, expected) == pytest.approx(9e-3)
    with pytest.raises(ParityError, match=r"tolerance 0\.01"):
        difference(expected + 2e-2, expected)
    with pytest.raises(ParityError):
        difference(np.array([np.nan, 1.0]), expected)


@pytest.mark.slow
@pytest.mark.timeout(900)  # an export takes seconds, many of them on a busy machine
@each(ALL)
def test_every_attention_is_the_same_in_onnx_runtime(kind: Kind, tmp_path: Path) -> None:
    exported = export(kind.config(blocks=1), tmp_path)
    graphs = ["embedding", "attention", "attention_full"]
    if can_keep(exported.encoder.config):
        graphs += ["embedding_first", "embedding_next"]
    if kind.attention == "source_target":
        graphs.append("score")
    assert list(exported.facts) == graphs
    assert max(case.worst_absolute_difference for case in exported.cases) <= TOLERANCE


@pytest.mark.slow
@pytest.mark.timeout(900)
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
    exported = export(config(**({"positions": "rotary"} | changes)), tmp_path)
    assert max(case.worst_absolute_difference for case in exported.cases) <= TOLERANCE


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
    examples = {"lengths": torch.tensor([2, 3]), "padded": torch.zeros(2, 3, dtype=torch.int64)}
    return onnxruntime.InferenceSession(to_onnx(LeftMask(), examples, ["mask"]).SerializeToString())
