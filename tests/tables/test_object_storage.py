"""Tables in an object store: read, scored and trained on over S3's protocol, from a real server."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import fs
from typer.testing import CliRunner

from persona.cli.app import app
from persona.scoring import ProcessScorer, RunChanged, ScoringError, score_file
from persona.tables import TableError, open_table
from persona.tables.files import find_files
from tests.serving import free_port, status_of, wait_until
from tests.tools import with_tools

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]  # installs a server
CLICKS = b"user,item,time\nann,item 1,1\nbob,item 2,2\nann,item 3,3\n"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Host and port of a moto server."""
    environment, port = with_tools("moto[server]==5.2.5"), free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            url = f"http://127.0.0.1:{port}/moto-api/"
            wait_until(lambda: process.poll() is not None or status_of(url) == 200)
            assert process.poll() is None
            yield f"127.0.0.1:{port}"
        finally:
            process.terminate()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The bucket `logs`: three Parquet files of one user each, and a CSV file of clicks."""
    settings = {
        "AWS_ENDPOINT_URL": f"http://{server}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    system = fs.S3FileSystem(endpoint_override=server, scheme="http", allow_bucket_creation=True)
    system.create_dir("logs")
    for number in range(3):
        history = pa.array([["item 1", f"item {number}"]], pa.list_(pa.string()))
        table = pa.table({"id": [f"user {number}"], "history": history})
        pq.write_table(table, f"logs/users/{number}.parquet", filesystem=system)
    put(system, "logs/clicks.csv", CLICKS)
    return system


def put(system: Any, path: str, content: bytes) -> None:
    with system.open_output_stream(path) as file:
        file.write(content)


@pytest.mark.parametrize("source", ["s3://logs/users", "s3://logs/users/*.parquet"])
def test_a_folder_and_a_glob_of_a_bucket_are_read(bucket: Any, source: str) -> None:
    with open_table(source) as table:
        histories = [history for batch in table for history in getattr(batch, "histories", ())]
    assert histories == [["item 1", f"item {number}"] for number in range(3)]


def test_a_server_can_be_named_in_the_address(
    bucket: Any, server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = f"?scheme=http&endpoint_override={server}"
    for source in ("s3://logs/users/*.parquet", "s3://logs/users"):
        assert len(find_files(source + options).paths) == 3


@pytest.mark.parametrize("source", ["s3://logs/none.csv", "s3://nowhere/users"])
def test_what_is_not_there_is_named(bucket: Any, source: str) -> None:
    with pytest.raises(TableError, match=f"{source}: no such file"):
        open_table(source)


def test_clicks_of_a_bucket_are_inspected_and_converted(bucket: Any, tmp_path: Path) -> None:
    inspected = CliRunner().invoke(app, ["data", "inspect", "s3://logs/clicks.csv"])
    assert inspected.exit_code == 0, inspected.output
    target = tmp_path / "users.jsonl"
    words = ["data", "convert", "s3://logs/clicks.csv", str(target)]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert '"item 1","item 3"' in target.read_text().replace(", ", ",")


def test_a_bucket_is_scored_and_a_changed_object_is_noticed(
    bucket: Any, tiny_artifacts: Path, tmp_path: Path
) -> None:
    target = tmp_path / "out.parquet"
    rows = "".join(f'{{"id": {number}, "history": ["item 1"]}}\n' for number in range(40))
    rows += '{"id": 40, "history": null}\n'
    put(bucket, "logs/users.jsonl", rows.encode())

    def score(**options: Any) -> None:
        scorer = ProcessScorer(tiny_artifacts, workers=1)
        score_file("s3://logs/users.jsonl", target, scorer, part_rows=10, **options)

    with pytest.raises(ScoringError, match="1 of 41 rows are rejected"):
        score(max_rejects="0")
    put(bucket, "logs/users.jsonl", rows.encode() + rows.encode())
    with pytest.raises(RunChanged, match=r"input logs/users.jsonl: was \d+ bytes"):
        score()
    score(restart=True)
    assert pq.read_table(target).num_rows == 80
