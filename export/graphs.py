"""The encoder as ONNX graphs with dynamic batch and length, all over one copy of the weights.

Tracing takes most of an export's time, so an encoder is traced once with all outputs that need the
same inputs, and each graph is the part that its own outputs need.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx
import torch
from onnx.utils import Extractor
from torch import Tensor, nn

from export.next_clicks import FirstClicks, NextClicks, can_keep, parts_kept
from export.served import LONG_PIECES, ServedEncoder, can_rearrange
from export.weights import ExternalWeights
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from persona.artifact.format import (
    ITEM_EMBEDDINGS,
    WEIGHTS,
    GraphFact,
    GraphName,
    InputFact,
    TensorFact,
)
from persona.columns import ColumnKind

OPSET = 20  # exports cleanly; 23 emits an Attention operator that ONNX Runtime 1.31 refuses here
LONG_HISTORY = 320  # padded length from which `embedding_long` is faster

INPUTS = (
    InputFact(name="item_ids", datatype="INT64", shape=[-1, -1], carries="clicks.item_id"),
    InputFact(name="key_mask", datatype="BOOL", shape=[-1, -1], carries="clicks.mask"),
)
CANDIDATE_INPUT = InputFact(
    name="candidate_ids", datatype="INT64", shape=[-1, -1], carries="candidates.item_id"
)
TIME_INPUTS = (
    InputFact(name="times", datatype="INT64", shape=[-1, -1], carries="clicks.time"),
    InputFact(name="asked", datatype="INT64", shape=[-1], carries="query.time"),
)
COLUMN = "column_"  # begins the inputs that carry columns of clicks
COLUMN_TYPES: dict[ColumnKind, Literal["INT64", "FP32"]] = {"category": "INT64", "number": "FP32"}
KEPT_PART = "kept_"  # begins the inputs that carry what is kept
SEVERAL = {COLUMN: "columns", KEPT_PART: "kept"}  # arguments of several inputs
NEXT_INPUTS = (
    InputFact(name="positions", datatype="INT64", shape=[-1, -1], carries="kept.positions"),
    InputFact(name="attend", datatype="BOOL", shape=[-1, -1, -1], carries="kept.attend"),
    InputFact(name="newest", datatype="INT64", shape=[-1], carries="kept.newest"),
)
OUTPUTS = ("user_embedding", "attention_pooled", "attention_full")
KEPT_OUTPUTS = ("user_embedding", "kept")
SCORE_OUTPUTS = ("scores", "candidate_attention")
# At least 2 an axis, or the exporter takes it for a constant 1. Distinct, so that no two axes
# are taken for one.
BATCH, LENGTH, CANDIDATES, KEPT = 2, 3, 4, 5
EXAMPLES = {
    "item_ids": torch.zeros(BATCH, LENGTH, dtype=torch.int64),
    "key_mask": torch.ones(BATCH, LENGTH, dtype=torch.bool),
    "candidate_ids": torch.zeros(BATCH, CANDIDATES, dtype=torch.int64),
    "times": torch.zeros(BATCH, LENGTH, dtype=torch.int64),
    "asked": torch.zeros(BATCH, dtype=torch.int64),
    "positions": torch.ones(BATCH, LENGTH, dtype=torch.int64),
    "newest": torch.zeros(BATCH, dtype=torch.int64),
}


class PlainEncoder(nn.Module):
    """An encoder as it is, with the outputs of `ServedEncoder`."""

    def __init__(self, encoder: UserEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        self.score = encoder.score

    def forward(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(B, L), (B, L) to (B, D), (B, H, 1 + L), (B, blocks, H, 1 + L, 1 + L)."""
        embedding, pooled = self.encoder.encode(item_ids, key_mask, times, asked, columns=columns)
        _, full = self.encoder.encode_full(item_ids, key_mask, times, asked, columns=columns)
        return embedding, pooled, full


class ScoreGraph(nn.Module):
    """The scores of an encoder with source-target attention."""

    def __init__(self, encoder: ServedEncoder | PlainEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(
        self,
        item_ids: Tensor,
        key_mask: Tensor,
        candidate_ids: Tensor,
        times: Tensor | None = None,
        asked: Tensor | None = None,
        *,
        columns: Sequence[Tensor] = (),
    ) -> tuple[Tensor, Tensor]:
        """(B, L), (B, L), (B, N) to (B, N), (B, N, H, L)."""
        if isinstance(self.encoder, ServedEncoder):
            return self.encoder.score(item_ids, key_mask, candidate_ids, columns=columns)
        scores: tuple[Tensor, Tensor] = self.encoder.score(
            item_ids, key_mask, candidate_ids, times, asked, columns=columns
        )
        return scores


def graph_facts(config: EncoderConfig) -> dict[GraphName, GraphFact]:
    """The graphs of an architecture, with their inputs and outputs; axes of -1 are dynamic."""
    heads, inputs = config.heads, graph_inputs(config)
    shapes = ([-1, config.width], [-1, heads, -1], [-1, config.blocks, heads, -1, -1])
    embedding, pooled, full = _outputs(OUTPUTS, shapes)
    graphs: dict[GraphName, GraphFact] = {
        "embedding": _graph("embedding", [embedding], inputs),
        "attention": _graph("attention", [embedding, pooled], inputs),
        "attention_full": _graph("attention_full", [embedding, full], inputs),
    }
    attends_everywhere = config.blocks > 1 or config.pooling != "newest"
    if config.max_length >= LONG_HISTORY and can_rearrange(config) and attends_everywhere:
        graphs["embedding_long"] = _graph(
            "embedding_long", [embedding], inputs, min_length=LONG_HISTORY
        )
    if can_keep(config):
        kept = _outputs(
            KEPT_OUTPUTS, ([-1, config.width], [parts_kept(config), -1, -1, config.width])
        )
        graphs["embedding_first"] = _graph("embedding_first", kept, inputs)
        graphs["embedding_next"] = _graph("embedding_next", kept, next_inputs(config))
    if config.attention == "source_target":
        scores = _outputs(SCORE_OUTPUTS, ([-1, -1], [-1, -1, heads, -1]))
        graphs["score"] = _graph("score", scores, graph_inputs(config, candidates=True))
    return graphs


def graph_inputs(config: EncoderConfig, *, candidates: bool = False) -> list[InputFact]:
    """What a graph reads, in the order of the encoder's arguments."""
    return [
        *INPUTS,
        *([CANDIDATE_INPUT] if candidates else []),
        *(TIME_INPUTS if config.time != "none" else []),
        *(
            InputFact(
                name=f"{COLUMN}{name}",
                datatype=COLUMN_TYPES[column.kind],
                shape=[-1, -1],
                carries=f"clicks.{name}",
            )
            for name, column in config.columns.items()
        ),
    ]


def next_inputs(config: EncoderConfig) -> list[InputFact]:
    """What `embedding_next` reads: new clicks, and what is kept of those before them."""
    parts = [
        InputFact(
            name=f"{KEPT_PART}{part}",
            datatype="FP32",
            shape=[-1, -1, config.width],
            carries=f"kept.part_{part}",
        )
        for part in range(parts_kept(config))
    ]
    return [INPUTS[0], *NEXT_INPUTS, *parts]


def export_graphs(encoder: UserEncoder, folder: Path) -> dict[GraphName, GraphFact]:
    """Writes every graph, the shared weights and the item table into `folder`.

    Encoders with products for scores are rearranged, see `export.served`. ONNX checks the graphs.
    They refer to their weights by file, offset and length, so ONNX Runtime maps one copy for all.
    """
    table = encoder.item_embedding.weight.detach().numpy()
    np.save(folder / ITEM_EMBEDDINGS, table)
    facts = graph_facts(encoder.config)
    with (folder / WEIGHTS).open("wb") as file:
        weights = ExternalWeights(file, table, (folder / ITEM_EMBEDDINGS).stat().st_size)
        for model, names in _traced(encoder, facts):
            weights.move_out(model)
            for name in names:
                path = folder / facts[name].file
                path.write_bytes(_part(model, facts[name]).SerializeToString())
    for fact in facts.values():
        onnx.checker.check_model(str(folder / fact.file))
    return facts


def _traced(
    encoder: UserEncoder, facts: Mapping[GraphName, GraphFact]
) -> Iterator[tuple[onnx.ModelProto, list[GraphName]]]:
    """Each model that is traced, and the graphs that are parts of it."""
    served = ServedEncoder(encoder) if can_rearrange(encoder.config) else PlainEncoder(encoder)
    examples = _examples(graph_inputs(encoder.config), encoder.config)
    embedding: list[GraphName] = ["embedding", "attention", "attention_full"]
    if isinstance(served, ServedEncoder) and "embedding_first" in facts:
        outputs = (*OUTPUTS, KEPT_OUTPUTS[-1])
        yield to_onnx(FirstClicks(served), examples, outputs), [*embedding, "embedding_first"]
    else:
        yield to_onnx(served, examples, OUTPUTS), embedding
    if "embedding_long" in facts:
        in_pieces = ServedEncoder(encoder, LONG_PIECES)
        yield to_onnx(in_pieces, examples, OUTPUTS), ["embedding_long"]
    if "embedding_next" in facts:
        next_clicks = NextClicks(ServedEncoder(encoder))
        examples = _examples(next_inputs(encoder.config), encoder.config)
        yield to_onnx(next_clicks, examples, KEPT_OUTPUTS), ["embedding_next"]
    if "score" in facts:
        examples = _examples(graph_inputs(encoder.config, candidates=True), encoder.config)
        yield to_onnx(ScoreGraph(served), examples, SCORE_OUTPUTS), ["score"]


def to_onnx(
    module: nn.Module, examples: Mapping[str, Tensor], outputs: Sequence[str]
) -> onnx.ModelProto:
    """A module as ONNX, every axis of its inputs dynamic; `examples` holds a tensor an input."""
    arguments = as_arguments(examples)
    # It reports every torchvision operator that it does without.
    logging.getLogger("torch.onnx._internal.exporter._registration").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # From within torch.export, on copying its own trees.
        warnings.filterwarnings("ignore", message=".*LeafSpec", category=FutureWarning)
        program = torch.onnx.export(
            module.eval(),
            tuple(one for one in arguments.values() if isinstance(one, Tensor)),
            kwargs={n: one for n, one in arguments.items() if isinstance(one, tuple)},
            dynamo=True,
            opset_version=OPSET,
            input_names=list(examples),
            output_names=outputs,
            dynamic_shapes={name: _dynamic(one) for name, one in arguments.items()},
            optimize=True,
            verbose=False,
        )
    assert program is not None  # noqa: S101  # None only where export goes to a file
    return _stripped(program.model_proto)


def as_arguments(inputs: Mapping[str, Tensor]) -> dict[str, Tensor | tuple[Tensor, ...]]:
    """A graph's inputs as the arguments of a module: those that are numbered become a tuple."""
    arguments: dict[str, Tensor | tuple[Tensor, ...]] = {}
    for name, one in inputs.items():
        argument = next((SEVERAL[start] for start in SEVERAL if name.startswith(start)), name)
        others = arguments.get(argument, ())
        several = isinstance(others, tuple) and argument != name
        arguments[argument] = (*others, one) if several else one
    return arguments


def _dynamic(argument: Tensor | tuple[Tensor, ...]) -> Any:
    if isinstance(argument, tuple):
        return tuple(map(_dynamic, argument))
    width = int(argument.ndim == 3 and argument.is_floating_point())  # of what is kept
    return dict.fromkeys(range(argument.ndim - width), torch.export.Dim.DYNAMIC)


def _examples(inputs: Sequence[InputFact], config: EncoderConfig) -> dict[str, Tensor]:
    """A tensor of its own for each input: the exporter takes one object for one input."""
    kinds = {"INT64": torch.int64, "FP32": torch.float32}
    examples = {"attend": torch.ones(BATCH, config.heads * LENGTH, KEPT + LENGTH, dtype=torch.bool)}
    for fact in inputs:
        if fact.name.startswith(COLUMN):
            examples[fact.name] = torch.zeros(BATCH, LENGTH, dtype=kinds[fact.datatype])
        if fact.name.startswith(KEPT_PART):
            examples[fact.name] = torch.zeros(BATCH, KEPT, config.width)
    return {fact.name: (EXAMPLES | examples)[fact.name].clone() for fact in inputs}


def _part(model: onnx.ModelProto, fact: GraphFact) -> onnx.ModelProto:
    """The nodes and weights that a graph's outputs need."""
    names = ([tensor.name for tensor in tensors] for tensors in (fact.inputs, fact.outputs))
    return Extractor(model).extract_model(*names)


def _outputs(names: Sequence[str], shapes: Sequence[list[int]]) -> list[TensorFact]:
    return [
        TensorFact(name=name, datatype="FP32", shape=shape)
        for name, shape in zip(names, shapes, strict=True)
    ]


def _graph(
    name: GraphName,
    outputs: Sequence[TensorFact],
    inputs: Sequence[InputFact],
    min_length: int = 0,
) -> GraphFact:
    return GraphFact(
        file=f"{name}.onnx", inputs=list(inputs), outputs=list(outputs), min_length=min_length
    )


def _stripped(model: onnx.ModelProto) -> onnx.ModelProto:
    """Without what the exporter notes for its own debugging: stack traces and file paths."""
    for notes in (model.graph.node, model.graph.initializer):
        for note in notes:
            note.ClearField("doc_string")
            note.ClearField("metadata_props")
    for value in (*model.graph.input, *model.graph.output):
        value.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.ClearField("metadata_props")
    # Shapes inside the graph are inferred again by ONNX Runtime.
    model.graph.ClearField("value_info")
    return model
