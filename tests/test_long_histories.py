"""Long histories have a graph of their own, which gives the same embeddings."""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from export import graphs
from export.int8 import calibrate
from export.parity import TOLERANCE
from export.write import Description, write_artifact
from model.encoder import EncoderConfig
from service import session
from service.artifact import PARITY, Artifact, GraphName, open_artifact
from service.session import Engine, Row, open_session
from tests.conftest import random_encoder
from tests.small import of

N_ITEMS = 9
LEARNED = EncoderConfig(width=16, blocks=2, heads=2, max_length=12)
ROTARY = EncoderConfig(width=16, blocks=2, heads=1, max_length=12, positions="rotary", gated=True)


@pytest.fixture(scope="module", autouse=True)
def _short() -> Iterator[None]:
    """Twelve clicks are long."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (graphs, session):
            patch.setattr(module, "LONG", 12)
        yield


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Of a model that reads twelve clicks; an export takes half a minute."""
    encoder = random_encoder(LEARNED, N_ITEMS, spread=0.1)
    items = [f"i{row}" for row in range(N_ITEMS)]
    root = tmp_path_factory.mktemp("long")
    return open_artifact(write_artifact(encoder, items, Description("m"), root))


@pytest.mark.timeout(300)
def test_in_pieces_it_is_the_same_attention(artifact: Artifact) -> None:
    cases = json.loads((artifact.folder / PARITY).read_text())["cases"]
    long = [case for case in cases if case["graph"] == "embedding_long"]
    assert {case["length"] for case in long} == {1, 2, 3, 6, 12}
    assert {case["padding_side"] for case in long} == {"left", "right"}
    assert max(case["worst_absolute_difference"] for case in long) <= TOLERANCE


@pytest.mark.timeout(300)
@pytest.mark.parametrize("eight_bits", [False, True], ids=["fp32", "int8"])
def test_with_rotary_positions_it_gives_the_same_as_the_other_graph(
    eight_bits: bool,
    tmp_path: Path,
) -> None:
    encoder = random_encoder(ROTARY, N_ITEMS, spread=0.1)
    rows = [list(range(at, at + 4)) for at in range(5)]
    bounds = calibrate(encoder, of(*rows, n_items=N_ITEMS)) if eight_bits else None
    facts = graphs.export_graphs(encoder, tmp_path, bounds)
    feeds = {"item_ids": np.array(rows), "key_mask": np.ones((5, 4), np.bool_)}
    short, long = (
        onnxruntime.InferenceSession(tmp_path / facts[graph].file).run(None, feeds)[0]
        for graph in ("embedding", "embedding_long")
    )
    tolerance = 0.02 if eight_bits else TOLERANCE
    np.testing.assert_allclose(long, short, atol=tolerance * max(1.0, float(np.abs(short).max())))


@pytest.mark.parametrize(("max_length", "similarity"), [(11, "dot"), (12, "additive")])
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
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[GraphName] = []
    monkeypatch.setattr(session, "open_session", lambda of, graph: Noted(of, graph, ran))
    engine = Engine(artifact)
    clicks = np.random.default_rng(0).integers(0, N_ITEMS, 12).tolist()
    short, long = [Row(array("q", [1, 2])), Row(array("q", clicks[1:]))], Row(array("q", clicks))
    alone, _ = engine.run("embedding", short)
    beside, _ = engine.run("embedding", [short[0], long])
    assert ran == ["embedding", "embedding_long"]
    np.testing.assert_allclose(alone[0], beside[0], atol=TOLERANCE)  # the company changes nothing
    engine.run("attention", [long])
    assert ran[2:] == ["attention"]
