"""Scoring through a service that is reached over a bad line, or is killed and starts again."""

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest

from persona.client import Client
from persona.contract import DeadlineExceeded, ModelNotFound
from persona.scoring import ProcessScorer, Scorer, ServiceScorer, score_file
from tests.scoring.small_tables import content_of, rejects_of, write_jsonl
from tests.scoring.test_processes import users
from tests.serving import free_port, serving
from tests.versions import add_version

FAULTS = ("none", "refuse", "cut", "hang up")


class BadLine(ThreadingHTTPServer):
    """Passes requests on to a service, and spoils some of the answers."""

    daemon_threads = True

    def __init__(self, service: str, spoiled: float) -> None:
        super().__init__(("127.0.0.1", 0), Exchange)
        self.service, self.spoiled = service, spoiled
        self.draw = random.Random(0)
        self.faults: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault(self) -> str:
        fault = self.draw.choice(FAULTS[1:]) if self.draw.random() < self.spoiled else FAULTS[0]
        self.faults.append(fault)
        return fault


class Exchange(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: BadLine

    def do_GET(self) -> None:
        self._pass_on("none")

    def do_POST(self) -> None:
        self._pass_on(self.server.fault())

    def _pass_on(self, fault: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if fault == "refuse":
            self._answer(429, b"{}", retry_after="0.05")
        elif fault != "hang up":
            answer = httpx.request(
                self.command, f"{self.server.service}{self.path}", content=body, timeout=60
            )
            cut = len(answer.content) // 2 if fault == "cut" else None
            self._answer(answer.status_code, answer.content, cut=cut)
        self.close_connection = fault in {"cut", "hang up"}

    def _answer(
        self, status: int, content: bytes, retry_after: str = "0", cut: int | None = None
    ) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("retry-after", retry_after)
        self.end_headers()
        self.wfile.write(content[:cut])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def bad_line(service: str, spoiled: float) -> Iterator[BadLine]:
    with BadLine(service, spoiled) as line:
        thread = threading.Thread(target=line.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield line
        finally:
            line.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def service(tiny_artifacts: Path) -> Iterator[str]:
    with serving(tiny_artifacts) as client:
        yield str(client.base_url)


def test_refusals_and_cut_connections_change_no_byte(service: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(1000))
    score_file(source, tmp_path / "a.parquet", ServiceScorer(service), part_rows=10)
    with bad_line(service, 0.4) as line:
        score_file(source, tmp_path / "b.parquet", ServiceScorer(line.url), part_rows=10)
    assert set(line.faults) == set(FAULTS)
    assert content_of(tmp_path / "b.parquet") == content_of(tmp_path / "a.parquet")
    rows = pq.read_table(tmp_path / "b.parquet")["row"].to_pylist()
    rejected = [reject["row"] for reject in rejects_of(tmp_path / "b.parquet")]
    assert sorted(rows + rejected) == list(range(1000))


def test_a_service_recommends_what_processes_recommend(
    service: str, tiny_artifacts: Path, tmp_path: Path
) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(200))
    scorers: dict[str, Scorer] = {
        "url": ServiceScorer(service),
        "artifact": ProcessScorer(tiny_artifacts, workers=1),
    }
    for name, scorer in scorers.items():
        score_file(source, tmp_path / f"{name}.parquet", scorer, recommend=5, embeddings=True)
    one, other = (pq.read_table(tmp_path / f"{name}.parquet") for name in scorers)
    assert one.schema.equals(other.schema, check_metadata=True)
    assert one["items"].equals(other["items"])


def test_an_unknown_model_of_a_service_is_named(service: str, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "in.jsonl", users(1))
    with pytest.raises(ModelNotFound, match="no model 'news'; loaded: tiny"):
        score_file(source, tmp_path / "out.csv", ServiceScorer(service), model="news")


def test_one_version_scores_the_whole_file_where_two_share_the_requests(
    tiny_artifact: Path, other_tiny_artifact: Path, tmp_path: Path
) -> None:
    root = tmp_path / "artifacts"
    for version, artifact in (("1", tiny_artifact), ("2", other_tiny_artifact)):
        (root / "tiny").mkdir(parents=True, exist_ok=True)
        add_version(artifact, root, "tiny", version)
    source = write_jsonl(tmp_path / "in.jsonl", users(500))
    parts: list[int] = []

    def turn(_rows: int, _fraction: float) -> None:
        parts.append(len(parts))
        operator.share("tiny", {"1": 0.1, "2": 0.9} if len(parts) == 1 else {"1": 0.9, "2": 0.1})

    with serving(root, admin=True, watch_seconds=0.1) as client:
        url = str(client.base_url)
        operator = Client(url)
        operator.share("tiny", {"1": 0.9, "2": 0.1})
        report = score_file(
            source, tmp_path / "b.parquet", ServiceScorer(url), part_rows=50, progress=turn
        )
        operator.close()
    assert (report.model.version, len(parts)) == ("1", 10)
    score_file(source, tmp_path / "a.parquet", ProcessScorer(tiny_artifact, workers=1))
    one, other = (pq.read_table(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    np.testing.assert_allclose(
        np.array(one["embedding"].to_pylist()), np.array(other["embedding"].to_pylist()), atol=1e-6
    )


def test_a_service_that_only_misses_deadlines_gets_few_requests(tmp_path: Path) -> None:
    asked: list[bytes] = []

    def late(request: httpx.Request) -> httpx.Response:
        asked.append(request.content)
        card = {"name": "late", "version": "1", "width": 3}
        models = request.url.path == "/v1/models"
        answer = httpx.Response(200, json={"models": [card]}) if models else httpx.Response(504)
        answer.headers["retry-after"] = "0.001"
        return answer

    source = write_jsonl(tmp_path / "in.jsonl", users(1000))
    scorer = ServiceScorer("http://late", transport=httpx.MockTransport(late))
    with pytest.raises(DeadlineExceeded):
        score_file(source, tmp_path / "out.csv", scorer)
    assert len(asked) < 30


def started(artifacts: Path, port: int) -> "subprocess.Popen[bytes]":
    """`persona serve`, which is not ready yet, in a process group of its own."""
    options = ["--artifacts", str(artifacts), "--port", str(port), "--log-level", "critical"]
    command = [sys.executable, "-m", "persona", "serve", *options]
    return subprocess.Popen(command, start_new_session=True, stderr=subprocess.DEVNULL)


@pytest.mark.slow
def test_a_service_that_is_killed_and_starts_again_changes_no_byte(
    tiny_artifacts: Path, tmp_path: Path
) -> None:
    source, port = write_jsonl(tmp_path / "in.jsonl", users(3000)), free_port()
    url, progress = f"http://127.0.0.1:{port}", list[int]()
    processes = [started(tiny_artifacts, port)]

    def restart(rows: int, _fraction: float) -> None:
        progress.append(rows)
        if len(progress) in {5, 20}:
            os.killpg(processes[-1].pid, signal.SIGKILL)
            processes[-1].wait()
            processes.append(started(tiny_artifacts, port))

    try:
        score_file(
            source, tmp_path / "b.parquet", ServiceScorer(url), part_rows=50, progress=restart
        )
        score_file(source, tmp_path / "a.parquet", ServiceScorer(url), part_rows=50)
    finally:
        os.killpg(processes[-1].pid, signal.SIGKILL)
        processes[-1].wait()
    assert len(processes) == 3
    assert content_of(tmp_path / "b.parquet") == content_of(tmp_path / "a.parquet")
