"""`persona score` as a user types it, with the real service."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner, Result

from persona.cli import progress
from persona.cli.app import app as persona
from persona.cli.score import RUN_CHANGED, TOO_MANY_REJECTS, score
from persona.client import Client
from persona.contract import PersonaError
from tests.scoring.small_tables import rejects_of, write_jsonl
from tests.scoring.test_processes import ROOT, users
from tests.serving import running_service, wait_until

app = typer.Typer()
app.command()(score)


def run(*options: object) -> Result:
    return CliRunner().invoke(app, [str(option) for option in options])


def test_two_thousand_lines_are_scored_or_rejected_in_processes(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    source, target = write_jsonl(tmp_path / "in.jsonl", users(2000)), tmp_path / "out.parquet"
    done = run("--artifact", tiny_artifacts, "--input", source, "--output", target)
    assert done.exit_code == 0, done.output
    scored = pq.read_table(target)["row"].to_pylist()
    rejected = [reject["row"] for reject in rejects_of(target)]
    assert sorted(scored + rejected) == list(range(2000))
    assert rejected == list(range(49, 2000, 50))
    assert "1,960 scored by tiny version 1" in done.stderr
    assert "40 rejected" in done.stderr


def test_a_service_gives_the_embeddings_in_the_file_and_the_reason_of_a_reject(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    histories = [["item 1", "item 2"], [], ["item 3"] * 30]
    source, target = tmp_path / "users.parquet", tmp_path / "embeddings.parquet"
    rows = pa.array([*histories, ["item 1"] * 10_001], pa.list_(pa.string()))
    pq.write_table(pa.table({"history": rows}), source)
    with running_service(tiny_artifacts) as url:
        done = run("--url", url, "--input", source, "--output", target)
        with Client(url) as client:
            expected = client.encode(histories).embeddings
    assert done.exit_code == 0, done.output
    written = np.array(pq.read_table(target)["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(written, expected, atol=1e-6)
    (reject,) = rejects_of(target)
    assert reject["reason"] == "the history has 10,001 items, limit 10,000"


def test_the_counts_are_printed_for_machines(tiny_artifacts: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(100))
    options = ("--input", source, "--output", tmp_path / "out.csv", "--json")
    done = run("--artifact", tiny_artifacts, *options)
    told = json.loads(done.stdout)
    assert (told["rows"], told["scored"], told["rejected"]) == (100, 98, 2)
    assert told["model"]["name"] == "tiny"
    assert told["padding_ratio"] >= 1


def test_columns_are_named_and_kept(tiny_artifacts: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "users.csv", tmp_path / "out.csv"
    source.write_text('visitor;clicks;country\nann;"[""item 1""]";ch\n')
    columns = ("--user", "visitor", "--history", "clicks", "--keep", "country")
    done = run("--artifact", tiny_artifacts, "--input", source, "--output", target, *columns)
    assert done.exit_code == 0, done.output
    head, row = target.read_text().splitlines()
    assert head == "row,id,country,embedding,used,truncated,unknown"
    assert row.startswith('0,ann,ch,"[')


@pytest.mark.parametrize("options", [(), ("--max-rejects", "0")], ids=["all", "more than allowed"])
def test_too_many_rejects_have_their_own_status(
    tiny_artifacts: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", [{"history": None}])
    paths = ("--input", source, "--output", tmp_path / "out.jsonl")
    done = run("--artifact", tiny_artifacts, *paths, *options)
    assert (done.exit_code, "1" in done.stderr) == (TOO_MANY_REJECTS, True)


def test_another_run_has_its_own_status(tiny_artifacts: Path, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(100))
    options = ("--artifact", tiny_artifacts, "--input", source, "--output", tmp_path / "out.jsonl")
    assert run(*options, "--max-rejects", "0").exit_code == TOO_MANY_REJECTS
    done = run(*options, "--unknown-items", "drop")
    assert done.exit_code == RUN_CHANGED
    assert "unknown_items: was token, is drop" in done.stderr
    assert run(*options, "--unknown-items", "drop", "--restart").exit_code == 0


def test_a_folder_without_artifacts_is_named(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(1))
    done = run("--artifact", tmp_path, "--input", source, "--output", tmp_path / "out.csv")
    assert isinstance(done.exception, PersonaError)
    assert str(tmp_path) in str(done.exception)


@pytest.mark.parametrize("verb", ["score", "serve", "explain"])
def test_help_shows_the_layout_of_the_folder_of_artifacts(verb: str) -> None:
    shown = CliRunner().invoke(persona, [verb, "--help"], env={"COLUMNS": "120"})
    assert "NAME/VERSION" in shown.stdout


@pytest.mark.parametrize(
    "options",
    [
        ("--url", "http://x", "--artifact", "."),
        ("--ray", "local"),
        ("--workers", "2"),
        ("--artifact", ".", "--requests", "2"),
    ],
)
def test_options_that_do_not_go_together_are_refused(options: tuple[str, ...]) -> None:
    assert run("--input", "a.csv", "--output", "b.csv", *options).exit_code == 2


def test_a_log_gets_a_line_now_and_then(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_S", 0.0)
    with progress.progress_on(Console(stderr=True)) as report:
        report(0, 0.0)
        report(500, 0.5)
    first, second = capsys.readouterr().err.splitlines()
    assert first == "0 rows, 0%, 0/s, 0 s left"
    assert second.startswith("500 rows, 50%, ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_which_says_how_it_goes_on(
    tiny_artifacts: Path, tmp_path: Path, number: signal.Signals
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(20_000))
    options = ["--artifact", tiny_artifacts, "--input", source, "--output", tmp_path / "out.csv"]
    command = [sys.executable, "-m", "persona", "score", *map(str, options)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)}
    ) as process:
        wait_until((tmp_path / "out.csv.work").exists)
        process.send_signal(number)
        _, told = process.communicate()
    assert process.returncode == -number
    assert f"persona: ended by {number.name}; the same command continues" in told
    left = {path.name for path in tmp_path.iterdir()}
    assert left == {"in.jsonl", "out.csv.work"}
