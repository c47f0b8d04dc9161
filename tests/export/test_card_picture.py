"""The picture of a model card: drawn from the artifact itself, the same each time."""

import json
import re
import shutil
from pathlib import Path

import pytest

from export.card_picture import card_picture
from export.write import write_card
from persona.artifact import open_artifact
from persona.artifact.format import CARD_PICTURE, EXAMPLES, MODEL_CARD
from persona.artifact.reading import Artifact
from persona.artifact.writing import write_manifest
from tests.fences import ROOT

SHIPPED = [ROOT / "artifacts" / name / "1" for name in ("news", "articles")]
SCORERS = {"popularity": {"NDCG@10": 0.25}, "encoder": {"NDCG@10": 0.5}}


@pytest.fixture
def artifact(tiny_artifact: Path, tmp_path: Path) -> Artifact:
    return open_artifact(shutil.copytree(tiny_artifact, tmp_path / "tiny" / "1"))


def with_metrics(artifact: Artifact, **metrics: object) -> Artifact:
    manifest = artifact.manifest.model_copy(update={"metrics": metrics})
    return Artifact(artifact.folder, manifest, artifact.golden)


def with_example(artifact: Artifact, name: str, length: int) -> None:
    items = [artifact.item_ids[at % len(artifact.item_ids)] for at in range(length)]
    text = json.dumps({"examples": [{"name": name, "history": items}]})
    (artifact.folder / EXAMPLES).write_text(text)
    write_manifest(artifact.folder, artifact.manifest)


def words(picture: str | None) -> list[str]:
    assert picture is not None
    return re.findall(r"<text[^>]*>([^<]*)</text>", picture)


def test_without_figures_and_examples_there_is_no_picture(artifact: Artifact) -> None:
    assert card_picture(artifact) is None


def test_the_picture_names_each_scorer_and_its_figure(artifact: Artifact) -> None:
    shown = words(card_picture(with_metrics(artifact, scorers=SCORERS, cases=1234)))
    assert {"popularity", "0.2500", "encoder", "0.5000", "NDCG@10 of 1,234 test cases"} <= {*shown}


def test_an_interval_is_drawn_where_the_artifact_has_it(artifact: Artifact) -> None:
    intervals = {"encoder": {"NDCG@10": [0.4, 0.6]}}
    shown = words(card_picture(with_metrics(artifact, scorers=SCORERS, intervals=intervals)))
    assert "NDCG@10, and its 95 % interval" in shown


def test_a_new_card_shows_what_an_example_looks_at(artifact: Artifact) -> None:
    with_example(artifact, "Costs $1 or $2", 3)
    write_card(artifact.folder)
    shown = words((open_artifact(artifact.folder).folder / CARD_PICTURE).read_text())
    assert {"Attention: Costs $1 or $2", "start", "head 1"} <= {*shown}
    assert f"]({CARD_PICTURE})" in (artifact.folder / MODEL_CARD).read_text()


def test_an_example_that_is_too_long_to_read_is_left_out(artifact: Artifact) -> None:
    with_example(artifact, "Long", 10)
    write_card(artifact.folder)
    assert not (artifact.folder / CARD_PICTURE).exists()


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: str(folder.parent.name))
def test_the_cards_that_ship_have_the_picture_of_their_artifact(folder: Path) -> None:
    artifact = open_artifact(folder)
    shipped = (folder / CARD_PICTURE).read_text()
    assert words(shipped) == words(card_picture(artifact))
    assert f"]({CARD_PICTURE})" in (folder / MODEL_CARD).read_text()


def test_the_same_artifact_gives_the_same_picture() -> None:
    artifact = open_artifact(SHIPPED[0])
    assert card_picture(artifact) == card_picture(artifact)
