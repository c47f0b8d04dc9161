"""Scoring on Ray: a cluster of this machine, with one node and with two."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from persona.contract import ModelNotFound
from persona.scoring import ProcessScorer, ServiceScorer, WorkerEnded, score_file
from tests.scoring.small_tables import rejects_of, write_jsonl
from tests.scoring.test_processes import users
from tests.serving import free_port, serving

pytestmark = [
    pytest.mark.slow,  # a cluster takes many seconds to start
    pytest.mark.timeout(900),
    # Ray leaves sockets and files open.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:.*Ray:FutureWarning"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "in.jsonl", users(2000))


def on_ray(artifacts: Path, address: str = "local") -> Any:
    from persona.scoring import RayScorer

    return RayScorer(artifacts, address)


def test_three_engines_give_the_same_embeddings_and_rejects(
    tiny_artifacts: Path, source: Path, tmp_path: Path
) -> None:
    with serving(tiny_artifacts) as client:
        scorers = {
            "url": ServiceScorer(str(client.base_url)),
            "artifact": ProcessScorer(tiny_artifacts),
            "ray": on_ray(tiny_artifacts),
        }
        for name, scorer in scorers.items():
            target = tmp_path / f"{name}.parquet"
            score_file(source, target, scorer, part_rows=100, unknown_items="error")
    tables = [pq.read_table(tmp_path / f"{name}.parquet") for name in scorers]
    embeddings = [np.array(table["embedding"].to_pylist()) for table in tables]
    for table, numbers, name in zip(tables, embeddings, scorers, strict=True):
        assert table["row"].to_pylist() == tables[0]["row"].to_pylist()
        np.testing.assert_allclose(numbers, embeddings[0], atol=1e-6)
        assert rejects_of(tmp_path / f"{name}.parquet") == rejects_of(tmp_path / "url.parquet")


def test_an_error_of_the_model_comes_as_it_is(tiny_artifacts: Path, source: Path) -> None:
    with pytest.raises(ModelNotFound, match="no model 'news' here, only tiny"):
        score_file(source, source.with_name("out.csv"), on_ray(tiny_artifacts), model="news")


def test_a_cluster_that_is_not_there_is_named(tiny_artifacts: Path, source: Path) -> None:
    with pytest.raises(WorkerEnded, match="no Ray cluster at 'auto'"):
        score_file(source, source.with_name("out.csv"), on_ray(tiny_artifacts, "auto"))
    closed = f"127.0.0.1:{free_port()}"
    with pytest.raises(WorkerEnded, match=f"no Ray cluster at '{closed}': .* refused"):
        score_file(source, source.with_name("out.csv"), on_ray(tiny_artifacts, closed))


def test_what_answers_but_is_not_ray_is_named(tiny_artifacts: Path, source: Path) -> None:
    with (
        HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as other,
        ThreadPoolExecutor() as threads,
    ):
        threads.submit(other.handle_request)
        scorer = on_ray(tiny_artifacts, f"127.0.0.1:{other.server_port}")
        with pytest.raises(WorkerEnded, match="what listens there is not Ray"):
            score_file(source, source.with_name("out.csv"), scorer)


class Http2(StreamRequestHandler):
    """Greets as any server of HTTP/2, and says no more."""

    def handle(self) -> None:
        self.wfile.write(b"\0\0\0\x04\0\0\0\0\0")
        while self.rfile.read(1):
            pass


def test_another_server_of_http_2_is_named(
    tiny_artifacts: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("persona.scoring.on_ray.JOIN_SECONDS", 10)
    with (
        ThreadingTCPServer(("", 0), Http2) as other,
        ThreadPoolExecutor() as threads,
    ):
        other.daemon_threads = True
        threads.submit(other.serve_forever)
        scorer = on_ray(tiny_artifacts, f"127.0.0.1:{other.server_address[1]}")
        with pytest.raises(WorkerEnded, match="did not answer as Ray does in 10 s"):
            score_file(source, source.with_name("out.csv"), scorer)
        other.shutdown()


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A cluster whose first node computes nothing."""
    from ray.cluster_utils import Cluster

    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    try:
        yield found
    finally:
        found.shutdown()


def test_a_node_that_is_killed_changes_no_byte(
    tiny_artifacts: Path, source: Path, tmp_path: Path, cluster: Any
) -> None:
    nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
    score_file(source, tmp_path / "a.parquet", on_ray(tiny_artifacts, cluster.address))
    progress: list[int] = []

    def kill(rows: int, _fraction: float) -> None:
        progress.append(rows)
        if len(progress) == 3:
            cluster.remove_node(nodes[0], allow_graceful=False)

    score_file(
        source,
        tmp_path / "b.parquet",
        on_ray(tiny_artifacts, cluster.address),
        part_rows=20,
        progress=kill,
    )
    one, other = (pq.read_table(tmp_path / name) for name in ("a.parquet", "b.parquet"))
    assert len(progress) > 50
    assert one.equals(other)
    assert rejects_of(tmp_path / "a.parquet") == rejects_of(tmp_path / "b.parquet")
