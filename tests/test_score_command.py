"""`persona score` as a user types it, with the real service."""

import json
import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import typer
from typer.testing import CliRunner, Result

from client import Client, NotReady
from persona.score import local_service, score
from service.errors import ArtifactError

app = typer.Typer()
app.command()(score)


def run(*options: object) -> Result:
    return CliRunner().invoke(app, [str(option) for option in options])


def mixed_rows(count: int) -> list[str]:
    """Histories of all lengths, and a bad line every fiftieth."""
    draw = random.Random(0)
    bad = ["{", '{"history": null}', json.dumps({"history": ["item 1"] * 10_001})]
    return [
        draw.choice(bad)
        if number % 50 == 49
        else json.dumps({"id": number, "history": [f"item {draw.randrange(25)}"] * (number % 17)})
        for number in range(count)
    ]


def test_two_thousand_lines_are_scored_or_rejected_by_a_service_started_for_them(
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


def test_the_embeddings_in_the_file_are_those_that_the_service_gives(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    histories = [["item 1", "item 2"], [], ["item 3"] * 30]
    source, target = tmp_path / "users.parquet", tmp_path / "embeddings.parquet"
    pq.write_table(pa.table({"history": pa.array(histories, pa.list_(pa.string()))}), source)
    with local_service(tiny_artifacts) as url:
        done = run("--url", url, "--input", source, "--output", target)
        with Client(url) as client:
            expected = client.encode(histories).embeddings
    assert done.exit_code == 0, done.output
    written = np.array(pq.read_table(target)["embedding"].to_pylist(), np.float32)
    np.testing.assert_allclose(written, expected, atol=1e-5)


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


def test_a_folder_without_artifacts_is_named_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no artifact here"), local_service(tmp_path):
        pass


def test_a_service_that_cannot_start_says_why(
    tiny_artifacts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONA_MAX_HISTORIES", "none at all")
    with (
        pytest.raises(NotReady, match="PERSONA_MAX_HISTORIES"),
        local_service(tiny_artifacts),
    ):
        pass


def test_an_address_and_a_folder_together_are_refused(tmp_path: Path) -> None:
    options = ("--input", "a.csv", "--output", "b.csv")
    done = run("--url", "http://127.0.0.1:1", "--artifacts", tmp_path, *options)
    assert (done.exit_code, "not both" in done.stderr) == (2, True)
