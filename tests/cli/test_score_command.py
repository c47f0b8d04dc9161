"""`persona score` as a user types it, with the real service."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import stamina
import typer
from typer.testing import CliRunner, Result

from persona.artifact import ArtifactError
from persona.cli.app import app as persona
from persona.cli.score import score
from persona.client import Client
from persona.scoring import FileError
from tests.serving import running_service

app = typer.Typer()
app.command()(score)


def run(*options: object) -> Result:
    return CliRunner().invoke(app, [str(option) for option in options])


def mixed_rows(count: int) -> list[str]:
    """Histories of all lengths, and a bad line every fiftieth."""
    draw = random.Random(0)
    bad = ["{", '{"history": null}', '{"history": [1.5]}']
    return [
        draw.choice(bad)
        if number % 50 == 49
        else json.dumps({"id": number, "history": [f"item {draw.randrange(25)}"] * (number % 17)})
        for number in range(count)
    ]


def test_two_thousand_lines_are_scored_or_rejected_in_process(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    source, target = tmp_path / "users.jsonl", tmp_path / "embeddings.parquet"
    source.write_text("\n".join(mixed_rows(2000)))
    done = run("--artifacts", tiny_artifacts, "--input", source, "--output", target)
    assert done.exit_code == 0, done.output
    scored = pq.read_table(target)["row"].to_pylist()
    rejects = Path(f"{target}.rejects.jsonl").read_text().splitlines()
    rejected = [json.loads(line)["row"] for line in rejects]
    assert sorted(scored + rejected) == list(range(2000))
    assert rejected == list(range(49, 2000, 50))
    assert "1,960 scored by tiny version 1" in done.stderr


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
    np.testing.assert_allclose(written, expected, atol=1e-5)
    (reject,) = Path(f"{target}.rejects.jsonl").read_text().splitlines()
    assert json.loads(reject)["reason"] == "the history has 10,001 items, limit 10,000"


def test_unknown_items_can_send_a_row_to_the_rejects(tiny_artifacts: Path, tmp_path: Path) -> None:
    source, target = tmp_path / "users.jsonl", tmp_path / "out.csv"
    source.write_text('{"history": ["item 1"]}\n{"history": ["item 1", "other"]}\n')
    options = ("--input", source, "--output", target, "--unknown-items", "error")
    assert run("--artifacts", tiny_artifacts, *options).exit_code == 0
    (reject,) = Path(f"{target}.rejects.jsonl").read_text().splitlines()
    assert "unknown item 'other'" in json.loads(reject)["reason"]


def test_a_file_without_a_usable_row_ends_with_status_1(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    source = tmp_path / "users.jsonl"
    source.write_text('{"history": null}\n')
    options = ("--input", source, "--output", tmp_path / "out.jsonl")
    done = run("--artifacts", tiny_artifacts, *options)
    assert (done.exit_code, "1 rejected" in done.stderr) == (1, True)


def test_a_folder_without_artifacts_is_named(tmp_path: Path) -> None:
    source = tmp_path / "users.jsonl"
    source.write_text('{"history": []}\n')
    options = ("--artifacts", tmp_path, "--input", source, "--output", tmp_path / "out.csv")
    done = run(*options)
    assert isinstance(done.exception, ArtifactError)
    assert str(tmp_path) in str(done.exception)


def test_a_folder_as_input_is_called_a_folder(tiny_artifacts: Path, tmp_path: Path) -> None:
    (tmp_path / "users.parquet").mkdir()
    options = ("--input", tmp_path / "users.parquet", "--output", tmp_path / "out.csv")
    done = run("--artifacts", tiny_artifacts, *options)
    assert isinstance(done.exception, FileError)
    assert "is a folder" in str(done.exception)


def test_a_retry_is_announced_in_words(tmp_path: Path) -> None:
    options = ("--input", "a.csv", "--output", tmp_path / "b.csv")
    with stamina.set_testing(True, attempts=2):
        done = run("--url", "http://127.0.0.1:9", *options)
    assert "trying again in 0.0 s" in done.stderr
    assert "retry_scheduled" not in done.stderr


@pytest.mark.parametrize("verb", ["score", "serve", "explain"])
def test_help_shows_the_layout_of_the_folder_of_artifacts(verb: str) -> None:
    shown = CliRunner().invoke(persona, [verb, "--help"], env={"COLUMNS": "120"})
    assert "NAME/VERSION" in shown.stdout


def test_an_address_and_a_folder_together_are_refused(tmp_path: Path) -> None:
    options = ("--input", "a.csv", "--output", "b.csv")
    done = run("--url", "http://127.0.0.1:1", "--artifacts", tmp_path, *options)
    assert (done.exit_code, "not both" in done.stderr) == (2, True)
