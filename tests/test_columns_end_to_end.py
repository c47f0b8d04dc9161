"""A log with an event and a price of each click: trained, exported, served, scored, explained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from model.clicks.histories import Histories
from model.evaluation.rankings import as_asked
from model.evaluation.scorer import user_embeddings
from model.network.encoder import UserEncoder
from model.training.run import load_run_data, read_item_ids, read_run_recipe
from model.training.train import load_encoder
from persona.artifact import open_artifact
from persona.cli.app import app
from persona.client import Client
from persona.contract import Floats, InvalidRequest
from persona.engine import Engine
from persona.scoring import ProcessScorer, ScoringError, ServiceScorer, score_file
from tests.protocols.tensors import infer
from tests.scoring.small_tables import read_output
from tests.serving import serving

RECIPE = """
name = "shop"
[data]
columns = { event = "category", price = "number" }
[encoder]
width = 8
blocks = 1
max_length = 6
[training]
epochs = 3
learning_rate = 0.05
warmup_steps = 0
max_batch = 8
unknown_rate = 0.1
"""
EVENTS = ["view", "cart", "", "view", "sale"]
READS = "which model 'shop' reads of every click"


def persona(*words: object) -> str:
    """The output of a command that succeeds."""
    done = CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, f"{done.output}{done.exception}"
    return done.output


def write_log(path: Path) -> Path:
    """Clicks of 30 users; some have no event, some no price."""
    lines = ["user,item,time,event,price"]
    for user in range(30):
        for at in range(2 + user % 9):
            item, price = (user + at * at) % 12, "" if at % 4 == 3 else f"{1.5 * at + user % 3}"
            lines.append(f"user {user:02},page {item},{at},{EVENTS[(user + at) % 5]},{price}")
    path.write_text("\n".join([*lines, ""]))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log, a run that was trained on it, and its artifact."""
    folder = tmp_path_factory.mktemp("shop")
    log, run = write_log(folder / "log.csv"), folder / "run"
    (folder / "shop.toml").write_text(RECIPE)
    torch.set_num_threads(1)
    persona("train", "--recipe", folder / "shop.toml", "--data", log, "--output", run)
    persona("export", run, "--name", "shop", "--output", folder / "artifacts")
    return folder


@pytest.fixture(scope="module")
def client(folder: Path) -> Iterator[httpx.Client]:
    with serving(folder / "artifacts") as running:
        yield running


@pytest.fixture(scope="module")
def encoder(folder: Path) -> UserEncoder:
    run = folder / "run"
    return load_encoder(read_run_recipe(run).encoder, len(read_item_ids(run)), run)


@pytest.fixture(scope="module")
def histories(folder: Path) -> Histories:
    return load_run_data(folder / "run", read_run_recipe(folder / "run"), None)[0]


@pytest.fixture(scope="module")
def expected(encoder: UserEncoder, histories: Histories) -> Floats:
    with torch.no_grad():
        found: Floats = user_embeddings(encoder, histories).numpy()
    return found


def embeddings_of(client: httpx.Client, histories: Any, **more: Any) -> Any:
    response = client.post("/v1/encode", json={"histories": histories, **more})
    assert response.status_code == 200, response.text
    return np.array([user["embedding"] for user in response.json()["users"]])


def test_a_request_has_the_embedding_of_the_trained_encoder(
    client: httpx.Client, encoder: UserEncoder, histories: Histories, expected: Floats
) -> None:
    asked = as_asked(histories, encoder.config)
    assert asked[1] == {
        "items": ["page 1", "page 2", "page 5"],
        "columns": {"event": ["cart", None, "view"], "price": [1.0, 2.5, 4.0]},
    }
    np.testing.assert_allclose(embeddings_of(client, asked), expected, atol=1e-5)
    with Client(str(client.base_url)) as own:
        np.testing.assert_allclose(own.encode(asked).embeddings, expected, atol=1e-5)


def test_training_has_moved_every_vector_so_that_each_value_matters(
    client: httpx.Client, encoder: UserEncoder
) -> None:
    assert encoder.columns is not None
    for table in encoder.columns.parameters():
        assert (table.abs().sum(1) > 0).all()  # that of unknown categories too
    values: list[Any] = [("view", 1), ("cart", 1), ("gift", 1), ("view", 5), ("view", None)]
    found = embeddings_of(
        client,
        [
            {"items": ["page 1"], "columns": {"event": [event], "price": [price]}}
            for event, price in values
        ],
    )
    apart = np.abs(found[:, None] - found).max(-1)
    assert (apart[~np.eye(len(values), dtype=bool)] > 1e-3).all()


def test_the_client_takes_arrays_and_no_number_is_a_missing_one(
    client: httpx.Client, folder: Path
) -> None:
    one = {"items": ["page 1", "page 2"]}
    arrays = {"event": np.array(["cart", "view"]), "price": np.array([1.0, np.nan])}
    plain = {"event": ["cart", "view"], "price": [1, None]}
    engine = Engine.open(folder / "artifacts")
    want = engine.encode([one | {"columns": plain}]).embeddings
    np.testing.assert_array_equal(engine.encode([one | {"columns": arrays}]).embeddings, want)
    with Client(str(client.base_url)) as own:
        found = own.encode([one | {"columns": arrays}]).embeddings
    np.testing.assert_allclose(found, want, atol=1e-6)


@pytest.mark.parametrize("kind", ["processes", "service"])
def test_a_file_is_scored_with_its_columns(
    kind: str, client: httpx.Client, folder: Path, expected: Floats, tmp_path: Path
) -> None:
    scorer: Any = ProcessScorer(folder / "artifacts", workers=1)
    scorer = scorer if kind == "processes" else ServiceScorer(str(client.base_url))
    score_file(folder / "log.csv", tmp_path / "users.jsonl", scorer)
    rows = read_output(tmp_path / "users.jsonl")
    np.testing.assert_allclose([row["embedding"] for row in rows], expected, atol=1e-5)


def test_a_file_without_a_column_is_refused_before_anything_is_scored(
    folder: Path, tmp_path: Path
) -> None:
    source = tmp_path / "clicks.csv"
    source.write_text("user,item,time,event\na,page 1,5,view\n")
    with pytest.raises(ScoringError, match="shop reads the column 'price' of every click, and"):
        score_file(source, tmp_path / "out.jsonl", ProcessScorer(folder / "artifacts", workers=1))


def test_an_artifact_ranks_as_its_run_does(folder: Path) -> None:
    output = persona("evaluate", folder / "run", "--artifact", folder / "artifacts")
    assert "NDCG@10 over artifact: +0.0000" in output


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"price": [1]}, f"history 1 has 1 items and 0 values of 'event', {READS}"),
        ({"event": ["view"]}, f"history 1 has 1 items and 0 values of 'price', {READS}"),
        (
            {"event": ["view"], "price": [1, 2]},
            f"history 1 has 1 items and 2 values of 'price', {READS}",
        ),
        (
            {"event": ["view"], "price": ["cheap"]},
            "history 1: a value of 'price' is no number in range",
        ),
    ],
)
def test_what_is_wrong_with_columns_is_said(
    client: httpx.Client, columns: dict[str, Any], message: str
) -> None:
    body = {"histories": [[], {"items": ["page 1"], "columns": columns}]}
    response = client.post("/v1/encode", json=body)
    assert response.status_code == 422
    assert response.json()["error"]["message"] == message
    assert response.json()["error"]["path"][:2] == ["histories", 1]


def test_an_unknown_category_is_encoded_as_one_or_refused(client: httpx.Client) -> None:
    history = {
        "items": ["page 1", "page 2"],
        "columns": {"event": ["view", "gift"], "price": [1, 2]},
    }
    missing = {**history, "columns": {"event": ["view", None], "price": [1, 2]}}
    for policy in ("token", "drop"):
        found, unknown = embeddings_of(client, [history, missing], unknown_items=policy)
        np.testing.assert_array_equal(found, unknown)
    body = {"histories": [history], "unknown_items": "error"}
    error = client.post("/v1/encode", json=body).json()["error"]
    assert error["message"] == "history 0, click 1: unknown event 'gift'"
    embeddings_of(client, [missing], unknown_items="error")


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("texts", [True, False], ids=["texts", "places"])
def test_triton_s_client_sends_columns_as_tensors(
    client: httpx.Client, folder: Path, binary: bool, texts: bool
) -> None:
    places = open_artifact(folder / "artifacts" / "shop" / "1").manifest.columns["event"].values
    events: Any = np.array([["cart", "gift"], ["", "view"]], np.object_)
    if not texts:
        rows = [places.index("cart"), len(places), -7, places.index("view")]  # -7 is padding
        events = np.array(rows).reshape(2, 2)
    tensors = {
        "item_ids": (np.array([["page 1", "page 2"], ["", "page 3"]], np.object_), "BYTES"),
        "key_mask": (np.array([[True, True], [False, True]]), "BOOL"),
        "column_event": (events, "BYTES" if texts else "INT64"),
        "column_price": (np.array([[1.5, 4], [0, 2]], np.float32), "FP32"),
    }
    found, declared = infer(client, "shop", tensors, binary=binary)
    assert declared == list(tensors)
    first = {"event": ["cart", "gift"], "price": [1.5, 4]}
    native = [
        {"items": ["page 1", "page 2"], "columns": first},
        {"items": ["page 3"], "columns": {"event": ["view"], "price": [2]}},
    ]
    np.testing.assert_allclose(found, embeddings_of(client, native), atol=1e-6)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (
            {"datatype": "FP32", "data": [0.5]},
            "must be BYTES or INT64 of shape [1, 1], as 'item_ids'",
        ),
        (
            {"datatype": "INT64", "data": [9]},
            "has place 9; places go from 0 to 2, and 3 is an unknown",
        ),
    ],
)
def test_the_inference_protocol_refuses_other_tensors(
    client: httpx.Client, tensor: dict[str, Any], message: str
) -> None:
    ids = {"name": "item_ids", "datatype": "INT64", "shape": [1, 1], "data": [1]}
    event = {"name": "column_event", "shape": [1, 1], **tensor}
    response = client.post("/v2/models/shop/infer", json={"inputs": [ids, event]})
    assert response.status_code == 400
    assert f"input 'column_event' {message}" in response.json()["error"]
    other = {**event, "name": "column_brand", "datatype": "BYTES", "data": ["acme"]}
    response = client.post("/v2/models/shop/infer", json={"inputs": [ids, other]})
    assert "unknown inputs: column_brand; known: " in response.json()["error"]


def test_openai_s_protocol_says_that_it_has_no_columns(client: httpx.Client) -> None:
    body = {"model": "shop", "input": [["page 1"]]}
    error = client.post("/v1/embeddings", json=body).json()["error"]
    assert error["message"] == (
        "model 'shop' reads event, price of every click, for which this API has no place; use "
        "/v1/encode"
    )
    assert error["param"] == "model"


def test_scores_and_recommendations_read_columns_too(client: httpx.Client, folder: Path) -> None:
    engine = Engine.open(folder / "artifacts")
    history: Any = {"items": ["page 1"], "columns": {"event": ["sale"], "price": [None]}}
    for route, more in (("score", {"candidates": ["page 2"]}), ("recommend", {"k": 2})):
        body = {"histories": [history], **more}
        (user,) = client.post(f"/v1/{route}", json=body).json()["users"]
        ask: Any = getattr(engine, route)
        np.testing.assert_allclose(user["scores"], ask([history], *more.values()).users[0].scores)
    (user,) = engine.recommend([history], 2, with_reasons=True).users
    assert user.reasons is not None
    assert user.reasons.base is not None
    np.testing.assert_allclose(
        user.reasons.weights.sum(1) + user.reasons.base, user.scores, atol=1e-5
    )


def test_the_manifest_and_the_list_of_models_declare_the_columns(
    client: httpx.Client, folder: Path
) -> None:
    manifest = open_artifact(folder / "artifacts" / "shop" / "1").manifest
    assert manifest.columns == read_run_recipe(folder / "run").encoder.columns
    assert set(manifest.columns["event"].values) == {"view", "cart", "sale"}
    assert manifest.columns["price"].kind == "number"
    (card,) = client.get("/v1/models").json()["models"]
    assert card["columns"]["event"]["values"] == list(manifest.columns["event"].values)
    recipe = manifest.training["recipe"]
    assert isinstance(recipe, dict)
    assert recipe["data"]["columns"] == {"event": "category", "price": "number"}


def test_a_history_is_explained_with_its_columns(folder: Path) -> None:
    words = ["explain", "--artifacts", str(folder / "artifacts"), "--history", "page 1,page 2"]
    event, price = ["--column", "event=view,"], ["--column", "price=,2.5"]
    assert "page 2" in persona(*words, *event, *price)
    for wrong, message in (
        ([*event, "--column", "price=1,cheap"], "numbers with commas between them"),
        (["--column", "brand=acme"], "the model reads the columns event, price"),
    ):
        done = CliRunner(env={"COLUMNS": "300"}).invoke(app, [*words, *wrong])
        assert done.exit_code == 2
        assert message in done.output
    done = CliRunner().invoke(app, [*words, *event])
    assert isinstance(done.exception, InvalidRequest)


def test_a_run_goes_on_from_the_columns_of_another(folder: Path, tmp_path: Path) -> None:
    later = tmp_path / "later.csv"
    more = "user 00,page 1,99,gift,7\nuser 00,page 2,100,view,1000\n"
    later.write_text((folder / "log.csv").read_text() + more)
    run = tmp_path / "later"
    persona("train", "--from", folder / "run", "--data", later, "--output", run, "--no-gain")
    assert read_run_recipe(run).encoder == read_run_recipe(folder / "run").encoder
