"""All 16 kinds of attention, from clicks to HTTP: trained, exported, served at once, compared."""

import json
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch

from export.run import export_run
from model.clicks.histories import pad
from model.network.config import EncoderConfig
from model.network.encoder import UserEncoder
from model.training.recipe import DataRecipe, Recipe, TrainingRecipe
from model.training.run import begin, load_data, read_item_ids, read_run_recipe, split
from model.training.train import load_encoder, train_encoder
from tests.attention_kinds import ALL, Kind, each
from tests.fences import ROOT
from tests.serving import running_service

KINDS = [kind for kind in ALL if kind.heads == 2]
MSNBC = ROOT.parent / "shared" / "data" / "msnbc990928.seq"
VISITORS = 1_500
MAX_LENGTH = 12
HISTORIES = [
    ["frontpage", "news", "news", "sports"],
    [],
    ["weather"],
    ["tech", "never seen", "health"],
    ["frontpage", "local"] * 10,  # longer than MAX_LENGTH
]
CANDIDATES = ["frontpage", "weather", "sports"]

# 16 trainings and exports come before the first test.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def name_of(kind: Kind) -> str:
    return f"{kind.attention}-{kind.similarity}-{kind.normalisation}"


def write_clicks(path: Path) -> None:
    """The first visitors of MSNBC where the file lies, else visitors of the same format."""
    if MSNBC.exists():
        with MSNBC.open() as source:
            path.write_text("".join(islice(source, VISITORS)))
        return
    sections = (
        "frontpage news tech local opinion on-air misc weather msn-news "
        "health living business msn-sports sports summary bbs travel"
    )
    rng = np.random.default_rng(0)
    starts, lengths = rng.integers(0, 17, VISITORS), rng.integers(1, 15, VISITORS)
    rows = [
        " ".join(str((start + step // 2) % 17 + 1) for step in range(length))
        for start, length in zip(starts, lengths, strict=True)
    ]
    path.write_text(f"{sections}\n\n% Sequences:\n\n" + "\n".join(rows) + "\n")


def make(kind: Kind, clicks: Path, runs: Path, artifacts: Path) -> None:
    """Trains and exports one kind, as `persona train` and `persona export` do."""
    torch.set_num_threads(1)  # the kinds are made side by side
    recipe = Recipe(
        name=name_of(kind),
        data=DataRecipe(format="msnbc", split="held_out_users", held_out_share=0.1),
        encoder=EncoderConfig(
            kind.attention,
            kind.similarity,
            kind.normalisation,
            heads=2,
            blocks=2,
            width=16,
            max_length=MAX_LENGTH,
        ),
        training=TrainingRecipe(epochs=1, max_batch=128),
    )
    run = runs / recipe.name
    histories, fact = load_data(recipe, clicks)
    begin(run, recipe, histories, fact)
    train_encoder(recipe, split(histories, recipe.data), run, progress=False)
    export_run(run, recipe.name, "1", artifacts)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs and the artifacts of all kinds."""
    folder = tmp_path_factory.mktemp("kinds")
    write_clicks(folder / "clicks.seq")
    places = (folder / "clicks.seq", folder / "runs", folder / "artifacts")
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        for job in [pool.submit(make, kind, *places) for kind in KINDS]:
            job.result()
    return folder


@pytest.fixture(scope="module")
def service(made: Path) -> Iterator[httpx.Client]:
    """One real service, a process of its own, that has loaded them all."""
    with running_service(made / "artifacts") as address, httpx.Client(base_url=address) as client:
        yield client


def ask(service: httpx.Client, path: str, **body: Any) -> list[dict[str, Any]]:
    response = service.post(path, json={"histories": HISTORIES, **body})
    assert response.status_code == 200, response.text
    users: list[dict[str, Any]] = response.json()["users"]
    return users


def encoder_of(kind: Kind, made: Path) -> UserEncoder:
    """The trained PyTorch encoder."""
    run = made / "runs" / name_of(kind)
    return load_encoder(read_run_recipe(run).encoder, len(read_item_ids(run)), run)


def rows_of(kind: Kind, made: Path, items: list[str]) -> list[int]:
    """Rows of the item table; unknown items have the one behind the last."""
    known = read_item_ids(made / "runs" / name_of(kind))
    return [known.index(item) if item in known else len(known) for item in items]


def test_the_service_names_the_switches_of_all_sixteen(service: httpx.Client) -> None:
    models = service.get("/v1/models").json()["models"]
    switches = ("attention", "similarity", "normalisation")
    shown = {
        model["name"]: tuple(model["architecture"][switch] for switch in switches)
        for model in models
    }
    assert shown == {name_of(kind): kind[:3] for kind in KINDS}
    assert len(shown) == 16


@each(KINDS)
def test_embeddings_and_weights_over_http_equal_pytorch(
    kind: Kind, made: Path, service: httpx.Client
) -> None:
    encoder = encoder_of(kind, made)
    users = ask(service, "/v1/encode", model=name_of(kind), attention="pooled")
    for history, user in zip(HISTORIES, users, strict=True):
        rows = [np.array(rows_of(kind, made, history), np.int32)]
        with torch.no_grad():
            embedding, weights = encoder.encode(*map(torch.from_numpy, pad(rows, MAX_LENGTH)))
        attention = np.column_stack((user["attention"]["start"], user["attention"]["weights"]))
        assert attention.shape[1] == 1 + min(len(history), MAX_LENGTH)
        np.testing.assert_allclose(user["embedding"], embedding[0], atol=1e-5, rtol=0)
        # PyTorch pads an empty history to one position.
        np.testing.assert_allclose(
            attention, weights[0, :, : attention.shape[1]], atol=1e-5, rtol=0
        )
        np.testing.assert_allclose(attention.sum(1), 1, atol=1e-5)


@each([kind for kind in KINDS if kind.attention == "source_target"])
def test_candidate_scores_and_weights_over_http_equal_pytorch(
    kind: Kind, made: Path, service: httpx.Client
) -> None:
    encoder = encoder_of(kind, made)
    candidates = torch.tensor([rows_of(kind, made, CANDIDATES)])
    users = ask(service, "/v1/score", model=name_of(kind), candidates=CANDIDATES, attention=True)
    for history, user in zip(HISTORIES, users, strict=True):
        rows = [np.array(rows_of(kind, made, history), np.int32)]
        item_ids, key_mask = map(torch.from_numpy, pad(rows, MAX_LENGTH))
        with torch.no_grad():
            scores, weights = encoder.score(item_ids, key_mask, candidates)
        used = min(len(history), MAX_LENGTH)
        attention = np.array(user["attention"]["weights"]).reshape(len(CANDIDATES), 2, used)
        np.testing.assert_allclose(user["scores"], scores[0], atol=1e-5, rtol=0)
        np.testing.assert_allclose(attention, weights[0, :, :, :used], atol=1e-5, rtol=0)
        np.testing.assert_allclose(attention.sum(-1), 1 if history else 0, atol=1e-5)


@each(KINDS)
def test_the_parity_report_of_two_blocks_stays_within_the_tolerance(kind: Kind, made: Path) -> None:
    report = json.loads((made / "artifacts" / name_of(kind) / "1" / "parity.json").read_text())
    graphs = {case["graph"] for case in report["cases"]}
    assert ("score" in graphs) == (kind.attention == "source_target")
    assert report["tolerance"] == 1e-5
    for case in report["cases"]:
        # Unscaled products make large embeddings, whose last digits depend on the processor.
        allowed = report["tolerance"] * max(1, case["largest_output"])
        assert case["worst_absolute_difference"] <= allowed, case
