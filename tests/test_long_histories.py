"""Long histories have a graph of their own, which gives the same embeddings."""

from array import array
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export import graphs
from export.int8 import calibrate
from export.parity import TOLERANCE, compare
from export.write import Description, write_artifact
from model.encoder import EncoderConfig
from service import session
from service.artifact import LONG, Artifact, GraphName, open_artifact
from service.session import Engine, Row, open_session
from tests.conftest import random_encoder
from tests.small import of

N_ITEMS = 9
LEARNED = EncoderConfig(width=16, blocks=2, heads=2, max_length=12)
ROTARY = EncoderConfig(width=16, blocks=2, heads=1, max_length=12, positions="rotary", gated=True)
WEIGHTED = EncoderConfig(
    width=16,
    blocks=2,
    heads=4,
    max_length=12,
    similarity="general",
    normalisation="weighted_softmax",
)


@pytest.fixture
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twelve clicks are long."""
    monkeypatch.setattr(graphs, "LONG", 12)


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize(
    "config", [LEARNED, ROTARY, WEIGHTED], ids=["learned", "rotary", "weighted general"]
)
def test_in_pieces_it_is_the_same_attention(config: EncoderConfig, tmp_path: Path) -> None:
    encoder = random_encoder(config, N_ITEMS, spread=0.1)
    cases = compare(encoder, tmp_path, graphs.export_graphs(encoder, tmp_path))
    long = [case for case in cases if case.graph == "embedding_long"]
    assert {case.length for case in long} == {1, 2, 3, 6, 12}
    assert {case.padding_side for case in long} == {"left", "right"}
    assert max(case.worst_absolute_difference for case in long) <= TOLERANCE


@pytest.mark.usefixtures("_short")
@pytest.mark.parametrize("config", [LEARNED, ROTARY], ids=["learned", "rotary"])
def test_in_8_bits_it_is_nearly_the_same(config: EncoderConfig, tmp_path: Path) -> None:
    encoder = random_encoder(config, N_ITEMS, spread=0.1)
    rows = [list(range(at, at + 4)) for at in range(5)]
    facts = graphs.export_graphs(encoder, tmp_path, calibrate(encoder, of(*rows, n_items=N_ITEMS)))
    feeds = {"item_ids": np.array(rows), "key_mask": np.ones((5, 4), np.bool_)}
    short, long = (
        onnxruntime.InferenceSession(tmp_path / facts[graph].file).run(None, feeds)[0]
        for graph in ("embedding", "embedding_long")
    )
    np.testing.assert_allclose(long, short, atol=0.02 * float(np.abs(short).max()))


@pytest.mark.parametrize(("max_length", "similarity"), [(LONG - 1, "dot"), (LONG, "additive")])
def test_what_it_would_not_help_has_no_such_graph(max_length: int, similarity: str) -> None:
    config = EncoderConfig(width=16, max_length=max_length, similarity=similarity)  # type: ignore[arg-type]  # by name
    assert "embedding_long" not in graphs.graph_modules(random_encoder(config, N_ITEMS))


class Noted:
    """A session that says when it runs."""

    def __init__(self, artifact: Artifact, graph: GraphName, ran: list[GraphName]) -> None:
        self.session, self.graph, self.ran = open_session(artifact, graph), graph, ran
        self.get_outputs = self.session.get_outputs

    def run(self, *arguments: Any) -> Any:
        self.ran.append(self.graph)
        return self.session.run(*arguments)


@pytest.mark.timeout(300)
def test_a_run_takes_the_graph_for_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = EncoderConfig(width=16, blocks=2, heads=2, max_length=LONG)
    encoder = random_encoder(config, N_ITEMS, spread=0.1)
    items = [f"i{row}" for row in range(N_ITEMS)]
    artifact = open_artifact(write_artifact(encoder, items, Description("m"), tmp_path))
    ran: list[GraphName] = []
    monkeypatch.setattr(session, "open_session", lambda of, graph: Noted(of, graph, ran))
    engine = Engine(artifact)
    clicks = np.random.default_rng(0).integers(0, N_ITEMS, LONG).tolist()
    alone, beside = (
        engine.run("embedding", [Row(array("q", [1, 2])), Row(array("q", row))])[0][0]
        for row in (clicks[1:], clicks)
    )
    assert ran == ["embedding", "embedding_long"]
    np.testing.assert_allclose(alone, beside, atol=TOLERANCE)  # the company changes nothing
    engine.run("attention", [Row(array("q", clicks))])
    assert ran[2:] == ["attention"]
