"""The engine computes long histories with the graph that the artifact has for them."""

from array import array
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest

from export.write import Description, write_artifact
from model.network.encoder import EncoderConfig
from persona.artifact import open_artifact
from persona.artifact.format import GraphName
from persona.contract import Floats
from persona.engine.session import Input, Session
from tests.conftest import random_encoder

LONG = 12  # clicks, in these tests


def input_of(clicks: Sequence[int]) -> Input:
    return Input({"item_id": array("q", clicks)}, len(clicks))


def embeddings(session: Session, graph: GraphName, *inputs: Input) -> list[Floats]:
    return [output["user_embedding"] for output in session.run(graph, inputs)]


def negate(path: Path) -> None:
    """Changes the sign of a graph's embeddings, so that a test sees which graph ran."""
    model = onnx.load(path, load_external_data=False)
    for node in model.graph.node:
        node.output[:] = ["before" if name == "user_embedding" else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["before"], ["user_embedding"]))
    path.write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """Over an artifact whose graph for long histories has the opposite sign."""
    encoder = random_encoder(EncoderConfig(width=16, heads=2, max_length=LONG), 9, spread=0.1)
    root = tmp_path_factory.mktemp("long")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("export.graphs.LONG_HISTORY", LONG)
        folder = write_artifact(encoder, [f"i{row}" for row in range(9)], Description("m"), root)
    artifact = open_artifact(folder)
    negate(artifact.graph_path("embedding_long"))
    return Session(artifact)


def test_the_longest_history_of_a_batch_decides_the_graph(session: Session) -> None:
    short, long = input_of([1, 2]), input_of([3, 1, 4, 1, 5, 0, 2, 6, 5, 3, 5, 8])
    (alone,) = embeddings(session, "embedding", short)
    beside, _ = embeddings(session, "embedding", short, long)
    np.testing.assert_allclose(beside, -alone, atol=1e-5)


def test_one_click_less_takes_the_graph_for_short_histories(session: Session) -> None:
    shorter = input_of([1] * (LONG - 1))
    (plain,) = embeddings(session, "embedding", shorter)
    (negated,) = embeddings(session, "embedding_long", shorter)
    np.testing.assert_allclose(plain, -negated, atol=1e-5)


def test_other_outputs_have_one_graph_for_all_lengths(session: Session) -> None:
    long = input_of([1] * LONG)
    (plain,) = embeddings(session, "attention", long)
    (negated,) = embeddings(session, "embedding", long)
    np.testing.assert_allclose(plain, -negated, atol=1e-5)
