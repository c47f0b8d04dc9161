"""Long histories have a graph of their own; the manifest says from which length."""

import shutil
from array import array
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from export.graphs import LONG_HISTORY, graph_facts
from model.network.config import EncoderConfig
from persona.artifact import open_artifact
from persona.artifact.writing import write_manifest
from persona.contract import ITEM_ID, Floats
from persona.engine.session import Input, Session

LONG = 5  # clicks, in this artifact


@pytest.fixture(scope="module")
def session(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Of an artifact whose graph for long histories gives the negative of the embedding."""
    folder = tmp_path_factory.mktemp("long") / "tiny" / "1"
    shutil.copytree(tiny_artifact, folder)
    model = onnx.load(folder / "embedding.onnx", load_external_data=False)
    last = next(node for node in model.graph.node if "user_embedding" in node.output)
    last.output[0] = "before"
    model.graph.node.append(helper.make_node("Neg", ["before"], ["user_embedding"]))
    (folder / "embedding_long.onnx").write_bytes(model.SerializeToString())
    manifest = open_artifact(tiny_artifact).manifest
    long = manifest.graphs["embedding"].model_copy(
        update={"file": "embedding_long.onnx", "min_length": LONG}
    )
    graphs = {**manifest.graphs, "embedding_long": long}
    write_manifest(folder, manifest.model_copy(update={"graphs": graphs}))
    return Session(open_artifact(folder))


def embed(session: Session, *lengths: int) -> list[Floats]:
    inputs = [Input({ITEM_ID: array("q", [3] * length)}, length) for length in lengths]
    return [output["user_embedding"] for output in session.run("embedding", inputs)]


def test_a_batch_takes_the_graph_for_its_longest_history(session: Session) -> None:
    (short,) = embed(session, LONG - 1)
    beside_short, _ = embed(session, LONG - 1, 1)
    beside_long, _ = embed(session, LONG - 1, LONG)
    np.testing.assert_allclose(beside_short, short, atol=1e-5)
    np.testing.assert_allclose(beside_long, -short, atol=1e-5)


def test_an_artifact_without_that_graph_computes_long_histories_too(tiny_artifact: Path) -> None:
    (embedding,) = embed(Session(open_artifact(tiny_artifact)), 12)
    assert np.isfinite(embedding).all()


def test_export_says_from_which_length_it_is_faster() -> None:
    facts = graph_facts(EncoderConfig(max_length=LONG_HISTORY))
    assert {name: fact.min_length for name, fact in facts.items()} == {
        "embedding": 0,
        "attention": 0,
        "attention_full": 0,
        "embedding_long": 320,
        "embedding_first": 0,
        "embedding_next": 0,
    }


@pytest.mark.parametrize(
    "config",
    [
        EncoderConfig(max_length=LONG_HISTORY - 1),
        EncoderConfig(max_length=LONG_HISTORY, similarity="additive"),
        EncoderConfig(max_length=LONG_HISTORY, blocks=1),  # read at one position
    ],
    ids=["short", "additive", "one block"],
)
def test_what_it_would_not_help_has_no_such_graph(config: EncoderConfig) -> None:
    assert "embedding_long" not in graph_facts(config)
