"""`persona data` as a user calls it."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from model.clicks.public_sets import PUBLIC_SETS
from model.errors import DataError, DownloadError
from persona.cli.data import app
from tests.model.test_download import CLICKS, Web, offer, web

__all__ = ["web"]  # a fixture

CSV = "user,item,time\nann,b,2\nann,a,1\nbob,b,1\nbob,,1\nbob,b,1\n"
ROWS = [{"id": "ann", "history": ["a", "b"]}, {"id": "bob", "history": ["b", "b"]}]


@pytest.fixture
def clicks(tmp_path: Path) -> Path:
    path = tmp_path / "clicks.csv"
    path.write_text(CSV)
    return path


def run(*words: str | Path) -> str:
    """What the command prints, stderr included."""
    result = CliRunner().invoke(app, [str(word) for word in words], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_inspect_prints_the_counts_and_the_broken_rows(clicks: Path) -> None:
    output = run("inspect", clicks)
    assert "csv" in output
    assert "line 5: no item" in output


def test_inspect_for_machines_is_one_json_object(clicks: Path) -> None:
    facts = json.loads(run("inspect", clicks, "--json"))
    assert (facts["users"], facts["items"], facts["clicks"], facts["rows"]) == (2, 2, 4, 5)
    assert (facts["history_length_p50"], facts["history_length_max"]) == (2, 2)
    assert (facts["repeated_rows"], facts["repeated_clicks"], facts["broken_rows"]) == (1, 1, 1)
    assert facts["broken"] == [{"line": 5, "reason": "no item"}]


def test_inspect_counts_the_broken_rows_that_it_does_not_name(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("1 1\n" + 12 * "rubbish\n")
    assert "and 2 more broken rows" in run("inspect", path, "--format", "sasrec")


def test_columns_are_named_by_options(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("who,what\n1,2\n")
    facts = json.loads(run("inspect", path, "--user", "who", "--item", "what", "--json"))
    assert facts["clicks"] == 1


def test_convert_to_parquet_writes_one_row_a_user(clicks: Path, tmp_path: Path) -> None:
    assert "2 users, 4 clicks" in run("convert", clicks, tmp_path / "new" / "users.parquet")
    assert pq.read_table(tmp_path / "new" / "users.parquet").to_pylist() == ROWS


def test_convert_to_jsonl_writes_one_object_a_user(clicks: Path, tmp_path: Path) -> None:
    run("convert", clicks, tmp_path / "users.jsonl")
    lines = (tmp_path / "users.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == ROWS


def test_convert_to_csv_writes_histories_as_json_lists(clicks: Path, tmp_path: Path) -> None:
    assert "1 broken rows left out" in run("convert", clicks, tmp_path / "users.csv")
    expected = 'id,history\nann,"[""a"", ""b""]"\nbob,"[""b"", ""b""]"\n'
    assert (tmp_path / "users.csv").read_text() == expected


def test_convert_reads_only_the_first_rows_when_asked(clicks: Path, tmp_path: Path) -> None:
    assert "1 users, 2 clicks" in run("convert", clicks, tmp_path / "u.csv", "--limit", "2")


def test_convert_to_anything_else_is_refused_and_leaves_nothing(
    clicks: Path, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"cannot write '\.xml', only \.parquet, \.jsonl, \.csv"):
        run("convert", clicks, tmp_path / "users.xml")
    assert list(tmp_path.iterdir()) == [clicks]


def test_mixed_ids_do_not_go_into_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"user": 1, "item": 1}\n{"user": 1, "item": "a"}\n')
    with pytest.raises(DataError, match=r"write \.jsonl"):
        run("convert", path, tmp_path / "users.parquet")
    assert list(tmp_path.iterdir()) == [path]


def test_download_keeps_a_file_that_is_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = PUBLIC_SETS["ml-1m"]
    small = replace(known, sha256=hashlib.sha256(CLICKS).hexdigest())
    monkeypatch.setitem(PUBLIC_SETS, "ml-1m", small)
    (tmp_path / small.file).write_bytes(CLICKS)
    output = run("download", "ml-1m", "--output", tmp_path)
    assert "ml-1m.txt" in output
    assert "Terms: research only" in output


def test_download_announces_every_new_try_in_a_readable_line(
    web: Web,  # the fixture
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    offer(web, monkeypatch, "ml-1m", CLICKS)
    web.failures = [503]
    output = run("download", "ml-1m", "--output", tmp_path, "--base-url", web.url)
    assert "status 503; trying again in 0.0 s" in output
    assert "retry_scheduled" not in output


def test_download_into_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file")
    with pytest.raises(DownloadError, match="data: File exists"):
        run("download", "ml-1m", "--output", tmp_path / "data")


def test_convert_onto_a_folder_is_an_error(clicks: Path, tmp_path: Path) -> None:
    (tmp_path / "users.csv").mkdir()
    with pytest.raises(DataError, match=r"users\.csv: Is a directory"):
        run("convert", clicks, tmp_path / "users.csv")


def test_download_of_an_unknown_set_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match="unknown set 'netflix'"):
        run("download", "netflix", "--output", tmp_path)


@pytest.mark.parametrize("verb", ["inspect", "convert", "download"])
def test_every_verb_shows_examples(verb: str) -> None:
    assert f"persona data {verb}" in run(verb, "--help")
