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
from persona.client import Client
from persona.columns import ClickColumn
from persona.contract import ITEM_ID, Embeddings, InvalidRequest, Query
from persona.engine import Engine
from tests.serving import serving

# user_embedding[b, d] = sum over real clicks of column[b, l]: a graph that only reads the column.
NODES = [
    helper.make_node("Cast", ["key_mask"], ["mask"], to=TensorProto.FLOAT),
    helper.make_node("Cast", ["column"], ["number"], to=TensorProto.FLOAT),
    helper.make_node("Mul", ["number", "mask"], ["real"]),
    helper.make_node("ReduceSum", ["real", "axis"], ["sum"], keepdims=1),
    helper.make_node("Expand", ["sum", "shape"], ["user_embedding"]),
]
TYPES = {"INT64": TensorProto.INT64, "BOOL": TensorProto.BOOL, "FP32": TensorProto.FLOAT}
EVENTS = ["view", "cart", "7"]


def graph_inputs(column: str, datatype: Any) -> list[InputFact]:
    found = [
        ("item_ids", "INT64", "item_id"),
        ("key_mask", "BOOL", "mask"),
        ("column", datatype, column),
    ]
    return [
        InputFact(name=name, datatype=kind, shape=[-1, -1], carries=f"clicks.{carried}")
        for name, kind, carried in found
    ]


def write_graph(path: Path, width: int, facts: list[InputFact]) -> None:
    inputs = [
        helper.make_tensor_value_info(fact.name, TYPES[fact.datatype], ["B", "L"]) for fact in facts
    ]
    output = helper.make_tensor_value_info("user_embedding", TensorProto.FLOAT, ["B", width])
    constants = [
        helper.make_tensor("axis", TensorProto.INT64, [1], [1]),
        helper.make_tensor("shape", TensorProto.INT64, [2], [1, width]),
    ]
    graph = helper.make_graph(NODES, "columns", inputs, [output], constants)
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)


def summing(
    source: Path, root: Path, column: str, datatype: str, golden: list[Any], **manifest: Any
) -> Path:
    """A copy of an artifact that reads a column of two clicks, whose numbers sum to 5."""
    folder = root / "tiny" / "1"
    shutil.copytree(source, folder)
    old = Manifest.model_validate_json((folder / MANIFEST).read_bytes())
    for graph in old.graphs.values():
        (folder / graph.file).unlink()
    width, inputs = old.architecture.width, graph_inputs(column, datatype)
    write_graph(folder / "embedding.onnx", width, inputs)
    outputs = [TensorFact(name="user_embedding", datatype="FP32", shape=[-1, width])]
    fact = GraphFact(file="embedding.onnx", inputs=inputs, outputs=outputs)
    pair = GoldenPair(
        history=["item 1", "item 2"], user_embedding=[5.0] * width, columns={column: golden}
    )
    pairs = Golden(tolerance=1e-4, pairs=[pair])
    (folder / GOLDEN).write_text(json.dumps(pairs.model_dump()))
    changes = {"graphs": {"embedding": fact}, **manifest}
    write_manifest(folder, old.model_copy(update=changes))
    return root


@pytest.fixture(scope="module")
def timed(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """An engine on an artifact whose manifest declares a second column, `time`."""
    root = tmp_path_factory.mktemp("timed")
    return Engine.open(summing(tiny_artifact, root, "time", "FP32", [2, 3]))


@pytest.fixture(scope="module")
def eventful(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an artifact that reads a column of texts, `event`."""
    root = tmp_path_factory.mktemp("eventful")
    columns = {"event": ClickColumn(values=tuple(EVENTS))}
    return summing(tiny_artifact, root, "event", "INT64", ["7", "new"], columns=columns)


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


BOUGHT: list[Any] = [
    {"items": ["item 1", "item 2"], "columns": {"event": ["cart", "sale"], "other": [1, 2]}},
    {"id": 1, "items": ["item 1", "item 2"], "columns": {"event": [7, "view"]}},
    [],
]
PLACES = [1 + 3, 2 + 0, 0]  # a text that the manifest does not have is in the place behind


def test_a_text_is_the_place_that_the_manifest_gives_it(eventful: Path) -> None:
    found = Engine.open(eventful).encode(BOUGHT).embeddings
    assert found[:, 0].tolist() == PLACES
    arrays = [{"items": ["item 1"], "columns": {"event": np.array(["cart"])}}]
    assert Engine.open(eventful).encode(arrays).embeddings[0, 0] == 1


def test_a_request_gives_columns_by_name(eventful: Path) -> None:
    with serving(eventful) as client, Client(str(client.base_url)) as own:
        assert own.encode(BOUGHT).embeddings[:, 0].tolist() == PLACES
        nine: dict[str, list[str]] = {name: [] for name in "abcdefghi"}
        refused: dict[str, Any] = {
            "history 0 has 1 items and 0 values of 'event', which model 'tiny' reads of every": {},
            "history 0 has 1 items and 2 values of 'event'": {"event": ["cart", "cart"]},
            "history 0, columns, 0: expected a string, a number or null, got true": {
                "event": [True]
            },
            "columns: 'time' has a field of its own": {"time": [1]},
            "history 0, columns: expected an object of at most 8 lists": nine,
        }
        for message, columns in refused.items():
            body = {"histories": [{"items": ["item 1"], "columns": columns}]}
            response = client.post("/v1/encode", json=body)
            assert response.status_code == 422
            assert response.json()["error"]["message"].startswith(message)


def test_columns_that_are_no_lists_are_refused(eventful: Path) -> None:
    engine = Engine.open(eventful)
    for columns, message in (
        (["cart"], "history 0: its columns are a list, not a mapping of lists"),
        ({"event": "cart"}, "history 0: column 'event' is a str, not a list"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            engine.encode([{"items": ["item 1"], "columns": columns}])
