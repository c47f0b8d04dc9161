"""Products in 8 bits: what they keep, whom they depend on, and when they are refused."""

from array import array
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from typer.testing import CliRunner

from export.errors import GateError
from export.graphs import EmbeddingGraph, graph_fact, to_onnx
from export.int8 import Int8, calibrate
from export.served import served
from export.write import Description, write_artifact
from model.encoder import Block, EncoderConfig, UserEncoder
from model.histories import Cases, pad
from persona.cli import app
from service.artifact import open_artifact
from service.catalogue import open_rows
from service.histories import ItemIndex
from service.session import Engine, Row
from tests import small
from tests.conftest import random_encoder
from tests.test_evaluate_report import train
from tests.test_training import write_walks

N_ITEMS, MAX_LENGTH = 30, 24
SHAPE = {"width": 32, "max_length": MAX_LENGTH, "heads": 2}
LEARNED = EncoderConfig(**SHAPE)  # type: ignore[arg-type]  # by name
ROTARY = EncoderConfig(**SHAPE, positions="rotary", gated=True)  # type: ignore[arg-type]  # by name
ITEMS = list(range(N_ITEMS))


class Made(NamedTuple):
    """An artifact in 8 bits, the encoder that it comes from, and the clicks."""

    folder: Path
    encoder: UserEncoder
    data: Int8


def clicks(encoder: UserEncoder) -> Int8:
    """Histories, and cases whose target stands well ahead in fp32: rounding must not matter."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(0, MAX_LENGTH + 5, 600)
    histories = small.of(*(rng.integers(0, N_ITEMS, n).tolist() for n in lengths), n_items=N_ITEMS)
    inputs = pad([histories[user] for user in range(len(histories))], MAX_LENGTH)
    with torch.no_grad():
        embeddings, _ = encoder.encode(*map(torch.from_numpy, inputs))
        logits = encoder.logits(embeddings).numpy()
    ordered = np.sort(logits, axis=1)
    margin = (ordered[:, -1] - ordered[:, -2]) / ordered.std(axis=1)
    chosen = np.flatnonzero(margin >= np.quantile(margin, 0.8))
    targets = np.argmax(logits, axis=1)[chosen]
    return Int8(histories, Cases(histories.select(chosen), targets), remove_seen=False)


def engine_of(folder: Path) -> tuple[Engine, ItemIndex]:
    artifact = open_artifact(folder)
    return Engine(artifact), ItemIndex(open_rows(artifact), MAX_LENGTH)


def embed(engine: Engine, rows: list[Row]) -> NDArray[np.float32]:
    return np.stack([embedding for embedding, *_ in engine.run("embedding", rows)])


@pytest.fixture(scope="module", params=[LEARNED, ROTARY], ids=["learned", "rotary gated"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    encoder = random_encoder(request.param, N_ITEMS, spread=0.03)
    data = clicks(encoder)
    root = tmp_path_factory.mktemp("int8")
    return Made(write_artifact(encoder, ITEMS, Description("m"), root, data), encoder, data)


@pytest.mark.timeout(300)
def test_rounded_embeddings_are_near_and_the_manifest_says_how_near(made: Made) -> None:
    histories = made.data.cases.histories
    rows = [histories[user][-MAX_LENGTH:] for user in range(100)]
    with torch.no_grad():
        before = made.encoder.encode(*map(torch.from_numpy, pad(rows, MAX_LENGTH)))[0].numpy()
    after = embed(engine_of(made.folder)[0], [Row(array("q", row.tolist())) for row in rows])
    norms = np.linalg.norm(before, axis=1) * np.linalg.norm(after, axis=1)
    cosines = (before * after).sum(1) / norms
    assert 0.99 < cosines.min() < 0.99999
    manifest = open_artifact(made.folder).manifest
    assert float(str(manifest.int8["cosine"])) >= 0.999 == manifest.int8["min_cosine"]
    assert manifest.int8["ndcg10_in_fp32"] == 1
    assert float(str(manifest.int8["ndcg10"])) >= 0.999
    assert 0 <= float(str(manifest.int8["ndcg10_standard_error"])) < 0.01
    assert manifest.int8["cases"] == len(made.data.cases.targets)
    assert float(str(manifest.parity["worst_absolute_difference"])) <= 1e-5  # of the fp32 graphs
    assert "Products in 8 bits" in (made.folder / "README.md").read_text()


def test_in_8_bits_too_a_history_has_the_same_embedding_in_any_company(made: Made) -> None:
    engine, _ = engine_of(made.folder)
    histories = made.data.cases.histories
    rows = [Row(array("q", histories[user][-MAX_LENGTH:].tolist())) for user in range(64)]
    together = embed(engine, rows)
    alone = np.concatenate([embed(engine, [row]) for row in rows])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_service_proves_an_artifact_in_8_bits(made: Made) -> None:
    engine, index = engine_of(made.folder)
    engine.prove(index)


@pytest.mark.parametrize(
    ("config", "attentions", "products"),
    [
        (LEARNED, 1, 3),  # of attention's output, and of the feed-forward layer
        (ROTARY, 0, 5),
        (replace(LEARNED, pooling="mean"), 2, 6),  # every position of both blocks counts
        (replace(LEARNED, similarity="additive"), 0, 6),
    ],
    ids=["learned", "rotary gated", "mean", "additive"],
)
def test_what_sees_every_position_is_rounded_and_the_newest_alone_is_not(
    config: EncoderConfig, attentions: int, products: int
) -> None:
    encoder = random_encoder(config, N_ITEMS, spread=0.03)
    bounds = calibrate(encoder, clicks(encoder).histories)
    graph = EmbeddingGraph(served(encoder, bounds)).eval()
    nodes = to_onnx(graph, graph_fact("embedding", encoder)).graph.node
    operators = [node.op_type for node in nodes]
    assert (operators.count("QAttention"), operators.count("QGemm")) == (attentions, products)


def test_where_8_bits_leave_too_little_nothing_is_exported(tmp_path: Path) -> None:
    encoder = random_encoder(LEARNED, N_ITEMS, spread=0.03)
    data = clicks(encoder)
    feed_forward = cast("Block", encoder.blocks[0]).feed_forward
    with torch.no_grad():  # one loud hidden unit, which nobody listens to
        feed_forward.inner.bias[0] = 1e5
        feed_forward.outer.weight[:, 0] = 0
    with pytest.raises(GateError, match=r"cosine of 0\.\d+ \(least 0\.999\) and NDCG@10 "):
        write_artifact(encoder, ITEMS, Description("m"), tmp_path, data)
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.timeout(300)
def test_the_command_exports_in_8_bits_and_says_what_that_costs(tmp_path: Path) -> None:
    run, data = tmp_path / "run", write_walks(tmp_path / "walks.txt")
    train(run, data, seed=0, blocks=2)
    words = ["export", f"{run}", "--name", "m", "--output", f"{tmp_path / 'artifacts'}"]
    refused = CliRunner().invoke(app, [*words, "--data", f"{data}"])
    assert refused.exit_code == 2
    assert "--int8" in refused.output
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [*words, "--int8", "--data", f"{data}"])
    assert done.exit_code == 0, done.output
    artifact = open_artifact(tmp_path / "artifacts" / "m" / "1")
    assert f"8 bits: cosine {artifact.manifest.int8['cosine']:.5f}, NDCG@10 " in done.output
    commands = artifact.manifest.training["commands"]
    assert isinstance(commands, list)
    assert commands[-1].endswith(f"--int8 --data {data.name}")


def test_one_block_that_is_read_at_one_position_has_nothing_to_round() -> None:
    encoder = random_encoder(replace(LEARNED, blocks=1), N_ITEMS)
    with pytest.raises(GateError, match="nothing to round"):
        served(encoder, calibrate(encoder, clicks(encoder).histories))


def test_without_a_case_to_tell_by_8_bits_are_refused(tmp_path: Path) -> None:
    encoder = random_encoder(LEARNED, N_ITEMS)
    nobody = Cases(small.of(n_items=N_ITEMS), np.array([], np.int64))
    data = Int8(clicks(encoder).histories, nobody, remove_seen=False)
    with pytest.raises(GateError, match="the clicks give none"):
        write_artifact(encoder, ITEMS, Description("m"), tmp_path, data)
