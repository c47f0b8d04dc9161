"""A click can be more than an id: what the manifest declares reaches the graph."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from persona.artifact.format import (
    GOLDEN,
    MANIFEST,
    Golden,
    GoldenPair,
    GraphFact,
    InputFact,
    Manifest,
    TensorFact,
)
from persona.artifact.writing import write_manifest
from persona.contract import ITEM_ID, Embeddings, InvalidRequest, Query
from persona.engine import Engine

# user_embedding[b, d] = sum over real clicks of times[b, l]: a graph that only reads the times.
NODES = [
    helper.make_node("Cast", ["key_mask"], ["mask"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["times", "mask"], ["real"]),
    helper.make_node("ReduceSum", ["real", "axis"], ["sum"], keepdims=1),
    helper.make_node("Expand", ["sum", "shape"], ["user_embedding"]),
]
INPUTS = {
    "item_ids": ("INT64", "clicks.item_id"),
    "key_mask": ("BOOL", "clicks.mask"),
    "times": ("FP32", "clicks.time"),
}


def timed_graph(path: Path, width: int) -> None:
    types = {"INT64": TensorProto.INT64, "BOOL": TensorProto.BOOL, "FP32": TensorProto.FLOAT}
    inputs = [
        helper.make_tensor_value_info(name, types[datatype], ["B", "L"])
        for name, (datatype, _) in INPUTS.items()
    ]
    output = helper.make_tensor_value_info("user_embedding", TensorProto.FLOAT, ["B", width])
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("shape", TensorProto.INT64, [2], [1, width]),
    ]
    graph = helper.make_graph(NODES, "timed", inputs, [output], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


@pytest.fixture(scope="module")
def timed(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine on an artifact whose manifest declares a second column, `time`."""
    folder = tmp_path_factory.mktemp("timed") / "tiny" / "1"
    shutil.copytree(tiny_artifact, folder)
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    for graph in manifest.graphs.values():
        (folder / graph.file).unlink()
    width = manifest.architecture.width
    timed_graph(folder / "embedding.onnx", width)
    inputs = [
        InputFact(name=name, datatype=datatype, shape=[-1, -1], carries=carries)
        for name, (datatype, carries) in INPUTS.items()
    ]
    outputs = [TensorFact(name="user_embedding", datatype="FP32", shape=[-1, width])]
    fact = GraphFact(file="embedding.onnx", inputs=inputs, outputs=outputs)
    pair = GoldenPair(
        history=["item 1", "item 2"], user_embedding=[5.0] * width, columns={"time": [2, 3]}
    )
    golden = Golden(tolerance=1e-4, pairs=[pair])
    (folder / GOLDEN).write_text(json.dumps(golden.model_dump()))
    write_manifest(folder, manifest.model_copy(update={"graphs": {"embedding": fact}}))
    return Engine.open(folder)


def sums(engine: Engine, items: list[list[str]], times: list[list[float]], **options: Any) -> Any:
    query = Query({ITEM_ID: items, "time": times}, Embeddings(), **options)
    found = [result.embedding for result in engine.run(query).histories]
    return np.array([vector[0] for vector in found if vector is not None])


def test_a_column_of_the_manifest_is_padded_and_fed_beside_the_ids(timed: Engine) -> None:
    items = [["item 1", "item 2", "item 3"], [], ["item 4"]]
    np.testing.assert_allclose(sums(timed, items, [[1, 2, 4.5], [], [10]]), [7.5, 0, 10])


def test_what_is_truncated_or_dropped_leaves_every_column(timed: Engine) -> None:
    long = [["item 1"] * 14]  # the model reads 12
    np.testing.assert_allclose(sums(timed, long, [[100.0, 100.0, *[1.0] * 12]]), [12])
    mixed = [["item 1", "new", "item 2"]]
    np.testing.assert_allclose(sums(timed, mixed, [[1, 50, 2]], unknown_items="drop"), [3])


def test_a_column_that_is_missing_or_too_short_is_refused(timed: Engine) -> None:
    with pytest.raises(InvalidRequest, match="history 1 has 1 items and 0 values of 'time'") as bad:
        timed.encode([[], ["item 1"]])
    assert bad.value.history == 1
    with pytest.raises(InvalidRequest, match="history 0 has 2 items and 1 values of 'time', which"):
        sums(timed, [["item 1", "item 2"]], [[1.0]])
    with pytest.raises(InvalidRequest, match="column 'time' is of 2 histories, not of 1"):
        sums(timed, [["item 1"]], [[1.0], []])
    with pytest.raises(InvalidRequest, match="history 0: a value of 'time' is no number in range"):
        sums(timed, [["item 1"]], [["noon"]])  # type: ignore[list-item]  # the point
