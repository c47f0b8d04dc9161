"""`persona export`: what it says, what it warns of, and what it refuses in one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import torch

from export.run import quality_warning
from model.clicks.histories import Histories
from model.network.config import EncoderConfig
from model.training.recipe import Recipe
from model.training.run import EVALUATION, DataFact, begin, write_json
from model.training.train import BEST
from persona.artifact import open_artifact
from persona.cli.app import main
from tests import small
from tests.conftest import random_encoder
from tests.fences import ROOT

CONFIG = EncoderConfig(width=8, heads=2, blocks=1, max_length=6)
HISTORIES: Histories = small.of([0, 1, 2], [2, 3])
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run that was interrupted in its first epoch."""
    recipe = Recipe(name="walk", encoder=CONFIG)
    begin(tmp_path / "run", recipe, HISTORIES, DataFact("clicks.txt", "", 2, 4, 5, 0))
    return tmp_path / "run"


@pytest.fixture
def finished(run: Path) -> Path:
    """The same run with a checkpoint, as far as the export reads it."""
    state = random_encoder(CONFIG, HISTORIES.n_items).state_dict()
    (run / "checkpoints").mkdir()
    checkpoint = {"state_dict": {f"encoder.{name}": value for name, value in state.items()}}
    torch.save(checkpoint, run / "checkpoints" / BEST)
    return run


@pytest.fixture
def export(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Export:
    """Runs the command: exit status, output, errors."""

    def export(*options: str) -> tuple[int, str, str]:
        words = ["persona", "export", str(run), "--output", str(run.parent / "artifacts")]
        monkeypatch.setattr(sys, "argv", [*words, *options])
        monkeypatch.setenv("COLUMNS", "200")
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0), *capsys.readouterr()

    return export


def test_a_run_without_a_checkpoint_is_refused_in_one_line(export: Export) -> None:
    status, _, errors = export("--name", "walk")
    assert status == 1
    assert "no checkpoint yet" in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--name", "my shop/x"), "the name 'my shop/x' is not allowed"),
        (("--name", "walk", "--version", "v2"), "the version 'v2' is not a whole number"),
    ],
    ids=["name", "version"],
)
def test_a_name_that_is_not_allowed_is_refused_in_one_line_before_anything_is_read(
    export: Export, options: tuple[str, ...], message: str
) -> None:
    status, _, errors = export(*options)
    assert status == 1
    assert message in errors
    assert len(errors.splitlines()) == 1


@pytest.mark.usefixtures("finished")
def test_a_run_below_popularity_is_exported_with_a_warning(
    export: Export, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorers = {"popularity": {"NDCG@10": 0.5}, "encoder": {"NDCG@10": 0.25}}
    write_json(run / EVALUATION, {"cases": 2, "scorers": scorers})
    monkeypatch.setattr("export.write.LARGE_CATALOGUE", HISTORIES.n_items - 1)
    status, output, errors = export("--name", "walk")
    assert status == 0
    assert "PyTorch and ONNX Runtime differ by at most" in output
    assert errors.startswith("warning: NDCG@10 of the encoder is 0.2500, below the 0.5000 of pop")
    artifact = open_artifact(run.parent / "artifacts" / "walk" / "1")
    assert artifact.manifest.metrics == {"cases": 2, "scorers": scorers}
    assert "item_slots.npy" in artifact.manifest.files  # the catalogue counts as a large one


@pytest.mark.usefixtures("finished")
def test_the_item_table_is_also_written_as_parquet(export: Export, run: Path) -> None:
    file = run.parent / "items.parquet"
    status, output, _ = export("--name", "walk", "--item-embeddings", str(file))
    assert status == 0
    assert f"{file}: 4 items" in output
    table = pq.read_table(file)
    assert table.column_names == ["item_id", "embedding"]
    assert table.column("item_id").to_pylist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("finished")
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["1 1", "1 2"], "has other items than the clicks of"),
        (["1 0", "1 1", "1 2", "2 2", "2 3"], "4 items need no index; from 1,000 on"),
    ],
    ids=["other clicks", "few items"],
)
def test_an_index_that_cannot_be_measured_or_is_not_needed_is_refused(
    export: Export, run: Path, rows: list[str], message: str
) -> None:
    clicks = run.parent / "clicks.txt"
    clicks.write_text("\n".join([*rows, ""]))
    status, _, errors = export("--name", "walk", "--index", "--data", str(clicks))
    assert status == 1
    assert message in errors
    assert not (run.parent / "artifacts" / "walk" / "1").exists()


def test_a_run_that_nobody_evaluated_has_a_warning() -> None:
    assert "has not been evaluated" in (quality_warning({}) or "")


def test_a_run_as_good_as_popularity_has_no_warning() -> None:
    equal = {"popularity": {"NDCG@10": 0.5}, "encoder": {"NDCG@10": 0.5}}
    assert quality_warning({"scorers": equal}) is None


@pytest.mark.parametrize(
    "module", ["export.write", "export.parity", "export.run", "bench.encoders"]
)
def test_importing_writes_no_device_id_below_the_users_home(module: str, tmp_path: Path) -> None:
    """ONNX Runtime would, for its telemetry."""
    environment = {"HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path / "matplotlib")}
    command = [sys.executable, "-B", "-c", f"import {module}"]
    subprocess.run(command, cwd=ROOT, env=environment, check=True)
    assert {path.name for path in tmp_path.iterdir()} <= {"matplotlib"}
