"""The index of a large catalogue: written by the export, searched by the engine."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from export import index as export_index
from export.errors import ExportError, RecallError
from export.index import write_index
from export.items import write_items
from export.write import Description, write_artifact
from model.clicks.histories import Histories
from model.network.config import EncoderConfig
from persona.artifact import ArtifactError, open_artifact
from persona.engine import Engine
from persona.engine import index as engine_index
from tests.conftest import random_encoder

N, D = 5_000, 16
CONFIG = EncoderConfig(width=D, heads=2, blocks=1, max_length=6)
ITEMS = [f"item {number}" for number in range(N)]


def clicks(users: int = 60) -> Histories:
    rng = np.random.default_rng(0)
    offsets = np.arange(users + 1) * 5
    items = rng.integers(0, N, users * 5).astype(np.int32)
    return Histories(list(range(users)), ITEMS, items, offsets)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("indexed")
    about = Description("large", index_for=clicks())
    write_artifact(random_encoder(CONFIG, N), ITEMS, about, folder)
    return folder


@pytest.fixture(scope="module")
def engine(root: Path) -> Engine:
    return Engine.open(root)


HISTORIES = [[ITEMS[row] for row in clicks()[user]] for user in range(20)]


def overlap(engine: Engine, **options: Any) -> float:
    found = engine.recommend(HISTORIES, 100, **options).users
    exact = engine.recommend(HISTORIES, 100, exact=True, **options).users
    shares = [len({*a.items} & {*b.items}) / 100 for a, b in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def test_the_manifest_says_what_the_index_is_and_finds(root: Path) -> None:
    manifest = open_artifact(root / "large" / "1").manifest
    assert manifest.index is not None
    assert manifest.index.file in manifest.files
    assert manifest.index.library.startswith("faiss 1.")
    assert 0.95 <= manifest.index.recall_100 <= 1
    assert manifest.index.users == 30


def test_the_index_finds_as_much_as_the_answer_says(engine: Engine) -> None:
    assert (engine.recommend([[]]).recall or 0) >= 0.95
    assert overlap(engine) >= 0.93


def test_what_it_finds_has_exact_scores_in_their_order(engine: Engine) -> None:
    for user in engine.recommend(HISTORIES, 50).users:
        assert (np.diff(user.scores) <= 0).all()
    (user,) = engine.recommend(HISTORIES[:1], 50).users
    (scored,) = engine.score(HISTORIES[:1], user.items).users
    np.testing.assert_allclose(user.scores, scored.scores, atol=1e-5)


def test_an_exact_answer_can_be_asked_for(engine: Engine) -> None:
    assert engine.recommend([[]], exact=True).recall is None


def test_seen_and_denied_items_are_not_recommended(engine: Engine) -> None:
    (first,) = engine.recommend(HISTORIES[:1], 50).users
    denied = first.items[::2]
    answer = engine.recommend(HISTORIES[:1], 50, denied=denied, exclude_seen=True)
    assert answer.recall is not None
    assert not {*denied, *HISTORIES[0]} & {*answer.users[0].items}
    assert len(answer.users[0].items) == 50


def test_allowed_items_and_many_denied_ones_are_searched_exactly(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert engine.recommend([[]], allowed=ITEMS[:50]).recall is None
    monkeypatch.setattr(engine_index, "MANY_EXCLUDED", 10)
    assert engine.recommend([[]], denied=ITEMS[:50]).recall is None


def test_the_whole_catalogue_comes_back_where_it_is_wanted(engine: Engine) -> None:
    (user,) = engine.recommend([[]], 2 * N).users
    (exact,) = engine.recommend([[]], 2 * N, exact=True).users
    assert user.items == exact.items


def test_a_recall_below_the_least_stops_the_export(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_index, "WANTED_RECALL", 0.01)
    rng = np.random.default_rng(0)
    table, users = (rng.standard_normal((n, D)).astype(np.float32) for n in (N, 20))
    with pytest.raises(RecallError, match="of the best 100 items, at least 95% are wanted"):
        write_index(table, users, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_few_items_and_scores_by_attention_have_no_index(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="20 items need no index"):
        write_index(np.zeros((20, D), np.float32), np.zeros((4, D), np.float32), tmp_path)
    config = EncoderConfig(attention="source_target", width=D, heads=2, max_length=6)
    with pytest.raises(ExportError, match="without an index"):
        export_index.sample_users(random_encoder(config, N), clicks())


def test_a_file_that_is_no_index_is_named(root: Path, tmp_path: Path) -> None:
    artifact = open_artifact(root / "large" / "1")
    (tmp_path / "item_index.faiss").write_bytes(b"no index")
    assert artifact.manifest.index is not None
    broken = type(artifact)(tmp_path, artifact.manifest, artifact.golden)
    with pytest.raises(ArtifactError, match=r"item_index\.faiss"):
        engine_index.Index(broken, artifact.manifest.index)


def test_the_item_table_can_be_written_for_other_databases(root: Path, tmp_path: Path) -> None:
    artifact = open_artifact(root / "large" / "1")
    write_items(artifact, tmp_path / "items.parquet")
    table = pq.read_table(tmp_path / "items.parquet")
    assert table.column("item_id").to_pylist() == ITEMS
    embeddings = np.stack(table.column("embedding").to_numpy())
    np.testing.assert_array_equal(embeddings, artifact.item_embeddings()[:-1])
    with pytest.raises(ExportError, match="No such file"):
        write_items(artifact, tmp_path / "nowhere" / "items.parquet")
