"""The encoder as ONNX graphs with dynamic batch and length, all over one copy of the weights."""

import hashlib
import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from export.int8 import Bounds
from export.served import PIECES, fuses_all_positions, in_pieces, served
from model.encoder import UserEncoder
from service.artifact import ITEM_EMBEDDINGS, LONG, WEIGHTS, GraphFact, GraphName, TensorFact

OPSET = 20  # exports cleanly; 23 emits an Attention operator that ONNX Runtime 1.31 refuses here
INLINE_BYTES = 256  # smaller constants, such as shapes, stay in the graph
ALIGNMENT = 64  # of tensors in the weights file: a cache line

INPUTS = {
    "item_ids": TensorFact(name="item_ids", datatype="INT64", shape=[-1, -1]),
    "key_mask": TensorFact(name="key_mask", datatype="BOOL", shape=[-1, -1]),
    "candidate_ids": TensorFact(name="candidate_ids", datatype="INT64", shape=[-1, -1]),
}


class EmbeddingGraph(nn.Module):
    """item_ids, key_mask -> user_embedding."""

    def __init__(self, encoder: UserEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, item_ids: Tensor, key_mask: Tensor) -> Tensor:
        """(B, L), (B, L) to (B, D)."""
        return self.encoder.encode(item_ids, key_mask)[0]


class AttentionGraph(EmbeddingGraph):
    """The same, and attention_pooled (B, H, 1 + L)."""

    def forward(self, item_ids: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # one more output
        """(B, L), (B, L) to (B, D), (B, H, 1 + L)."""
        return self.encoder.encode(item_ids, key_mask)


class FullAttentionGraph(EmbeddingGraph):
    """The same, and attention_full (B, blocks, H, 1 + L, 1 + L)."""

    def forward(self, item_ids: Tensor, key_mask: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # one more output
        """(B, L), (B, L) to (B, D), (B, blocks, H, 1 + L, 1 + L)."""
        return self.encoder.encode_full(item_ids, key_mask)


class ScoreGraph(EmbeddingGraph):
    """item_ids, key_mask, candidate_ids -> scores (B, N), candidate_attention (B, N, H, L)."""

    def forward(  # type: ignore[override]  # candidates come in, scores go out
        self, item_ids: Tensor, key_mask: Tensor, candidate_ids: Tensor
    ) -> tuple[Tensor, Tensor]:
        """(B, L), (B, L), (B, N) to (B, N), (B, N, H, L)."""
        return self.encoder.score(item_ids, key_mask, candidate_ids)


def graph_modules(encoder: UserEncoder) -> dict[GraphName, EmbeddingGraph]:
    """The graphs that this architecture has, by name."""
    graphs: dict[GraphName, EmbeddingGraph] = {
        "embedding": EmbeddingGraph(encoder),
        "attention": AttentionGraph(encoder),
        "attention_full": FullAttentionGraph(encoder),
    }
    if encoder.config.max_length >= LONG and fuses_all_positions(encoder.config):
        graphs["embedding_long"] = EmbeddingGraph(encoder)
    if encoder.candidates is not None:
        graphs["score"] = ScoreGraph(encoder)
    return graphs


def graph_fact(name: GraphName, encoder: UserEncoder) -> GraphFact:
    """Inputs and outputs of a graph; axes of -1 are dynamic."""
    config = encoder.config
    embedding = TensorFact(name="user_embedding", datatype="FP32", shape=[-1, config.width])
    outputs: dict[GraphName, list[tuple[str, list[int]]]] = {
        "embedding": [],
        "embedding_long": [],
        "attention": [("attention_pooled", [-1, config.heads, -1])],
        "attention_full": [("attention_full", [-1, config.blocks, config.heads, -1, -1])],
        "score": [("scores", [-1, -1]), ("candidate_attention", [-1, -1, config.heads, -1])],
    }
    facts = [TensorFact(name=n, datatype="FP32", shape=shape) for n, shape in outputs[name]]
    inputs = ["item_ids", "key_mask"]
    if name == "score":
        inputs.append("candidate_ids")
    else:
        facts.insert(0, embedding)
    return GraphFact(file=f"{name}.onnx", inputs=[INPUTS[i] for i in inputs], outputs=facts)


def export_graphs(
    encoder: UserEncoder, folder: Path, bounds: Mapping[str, Bounds] | None = None
) -> dict[GraphName, GraphFact]:
    """Writes every graph, the shared weights and the item table into `folder`.

    The graphs compute the encoder as `export.served` rearranges it, in 8 bits where it is given
    bounds. ONNX checks them. They refer to their weights by file, offset and length, so ONNX
    Runtime maps one copy for all.
    """
    table = encoder.item_embedding.weight.detach().numpy()
    np.save(folder / ITEM_EMBEDDINGS, table)
    facts: dict[GraphName, GraphFact] = {}
    with (folder / WEIGHTS).open("wb") as file:
        weights = ExternalWeights(file, table, (folder / ITEM_EMBEDDINGS).stat().st_size)
        rearranged = served(encoder, bounds)
        for name, module in graph_modules(rearranged).items():
            in_pieces(rearranged, PIECES if name == "embedding_long" else 1)
            facts[name] = graph_fact(name, encoder)
            model = to_onnx(module.eval(), facts[name])
            weights.move_out(model)
            (folder / facts[name].file).write_bytes(model.SerializeToString())
    for fact in facts.values():
        onnx.checker.check_model(str(folder / fact.file))
    return facts


# At least 2 an axis, or the exporter takes it for a constant 1. Distinct, so that no two axes
# are taken for one.
EXAMPLE = {
    "item_ids": torch.zeros(2, 3, dtype=torch.int64),
    "key_mask": torch.ones(2, 3, dtype=torch.bool),
    "candidate_ids": torch.zeros(2, 4, dtype=torch.int64),
}


def to_onnx(
    module: nn.Module, fact: GraphFact, example: Mapping[str, Tensor] = EXAMPLE
) -> onnx.ModelProto:
    """A module as ONNX, every axis of its inputs dynamic; `example` holds a tensor an input."""
    inputs = {tensor.name: example[tensor.name] for tensor in fact.inputs}
    dynamic = torch.export.Dim.DYNAMIC
    # It reports every torchvision operator that it does without.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # From within torch.export, on copying its own trees.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            module,
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(inputs),
            output_names=[tensor.name for tensor in fact.outputs],
            dynamic_shapes=tuple(dict.fromkeys(range(x.ndim), dynamic) for x in inputs.values()),
            optimize=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # None only where export goes to a file
    model = program.model_proto
    _strip(model)
    return model


def _strip(model: onnx.ModelProto) -> None:
    """Drops what the exporter notes for its own debugging: stack traces and file paths."""
    for notes in (model.graph.node, model.graph.value_info, model.graph.initializer):
        for note in notes:
            note.ClearField("doc_string")
            note.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    # Shapes inside the graph are inferred again by ONNX Runtime.
    model.graph.ClearField("value_info")


@dataclass
class ExternalWeights:
    """Moves initializers out of graphs into one file, equal ones once.

    The item table goes to the `.npy` file that already holds it.
    """

    file: BinaryIO
    item_table: np.ndarray
    item_file_bytes: int
    _places: dict[str, tuple[int, int]] = field(default_factory=dict)

    def move_out(self, model: onnx.ModelProto) -> None:
        """Replaces large initializers by references.

        Raises:
            ValueError: the graph does not hold the item table as it is.
        """
        tables = 0
        for tensor in model.graph.initializer:
            data = onnx.numpy_helper.to_array(tensor)
            if data.shape == self.item_table.shape and np.array_equal(data, self.item_table):
                tables += 1
                offset = self.item_file_bytes - data.nbytes
                _refer(tensor, ITEM_EMBEDDINGS, offset, data.nbytes)
            elif data.nbytes >= INLINE_BYTES:
                _refer(tensor, WEIGHTS, *self._place(data))
        if not tables:
            raise ValueError("the exporter has folded the item table into another constant")

    def _place(self, data: np.ndarray) -> tuple[int, int]:
        content = data.tobytes()
        key = f"{data.dtype}{data.shape}{hashlib.sha256(content).hexdigest()}"
        if key not in self._places:
            self.file.write(b"\0" * (-self.file.tell() % ALIGNMENT))
            self._places[key] = (self.file.tell(), len(content))
            self.file.write(content)
        return self._places[key]


def _refer(tensor: onnx.TensorProto, file: str, offset: int, length: int) -> None:
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)
