"""`persona serve` as a process: workers, signals, and what it never imports."""

import socket
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from tests.service.processes import metrics_of, process, wait_until_ready
from tests.serving import status_of, wait_until

HISTORIES = {"histories": [["item 1"], []]}


def test_two_workers_answer_and_add_up_their_metrics(tiny_artifacts: Path) -> None:
    def ready_workers(url: str) -> bool:
        return "persona_ready_workers 2.0" in httpx.get(f"{url}/metrics").text

    with process("--artifacts", str(tiny_artifacts), "--workers", "2") as (running, url):
        wait_until_ready(running, url, 2)
        wait_until(lambda: ready_workers(url))
        for _ in range(20):  # each over a connection of its own, to either worker
            assert httpx.post(f"{url}/v1/encode", json=HISTORIES).status_code == 200
        counted = 'persona_histories_total{model="tiny",version="1"} 40.0'
        wait_until(lambda: counted in httpx.get(f"{url}/metrics").text)


def test_a_worker_that_is_to_end_is_not_ready_but_answers(tiny_artifacts: Path) -> None:
    settings = {"PERSONA_ARTIFACTS": str(tiny_artifacts), "PERSONA_DRAIN_SECONDS": "1.5"}
    with process("--workers", "1", **settings) as (running, url):
        wait_until_ready(running, url)
        running.terminate()
        wait_until(lambda: status_of(f"{url}/health/ready") == 503)
        assert httpx.post(f"{url}/v1/encode", json=HISTORIES).status_code == 200
        assert httpx.get(f"{url}/health/ready").json()["error"]["message"] == (
            "draining: shutting down"
        )
        running.wait(timeout=30)
        assert status_of(f"{url}/health/live") == 0


def test_it_says_where_it_listens_and_what_to_try(tiny_artifacts: Path) -> None:
    with process("--artifacts", str(tiny_artifacts), "--workers", "1") as (running, url):
        wait_until_ready(running, url)
        running.terminate()
        _, log = running.communicate(timeout=30)
    assert f"Serving {tiny_artifacts} on {url}" in log
    assert f"curl {url}/v1/models" in log


def test_keys_that_cannot_be_read_end_the_start(tiny_artifacts: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "keys.json")
    with process("--artifacts", str(tiny_artifacts), PERSONA_KEYS_FILE=missing) as (running, _):
        _, log = running.communicate(timeout=30)
    assert log == f"persona: {missing}: no such file or directory\n"
    assert running.returncode == 1


def test_a_wrong_setting_is_named_with_its_value() -> None:
    with process(PERSONA_MAX_BATCH_TOKENS="0") as (running, _):
        _, log = running.communicate(timeout=30)
    assert "PERSONA_MAX_BATCH_TOKENS=0: Input should be greater than" in log
    assert running.returncode == 2


def test_a_port_that_is_taken_is_named_and_nothing_is_announced(tiny_artifacts: Path) -> None:
    options = ("--artifacts", str(tiny_artifacts), "--workers", "1")
    with process(*options) as (running, url):
        wait_until_ready(running, url)
        port = url.rpartition(":")[2]
        with process(*options, "--port", port) as (second, _):
            _, log = second.communicate(timeout=30)
    assert log == f"persona: cannot listen on 127.0.0.1, port {port}: address already in use\n"
    assert second.returncode == 1


@pytest.mark.parametrize("name", ["missing", "."])
def test_without_artifacts_it_does_not_start(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    with process("--artifacts", str(folder)) as (running, _):
        _, log = running.communicate(timeout=30)
    assert log.startswith(f"persona: {folder}: ")
    assert running.returncode == 1


def test_connections_are_spread_over_the_workers(tiny_artifacts: Path) -> None:
    with process("--artifacts", str(tiny_artifacts), "--workers", "2") as (running, url):
        wait_until(lambda: "persona_ready_workers 2.0" in metrics_of(url))
        port = int(url.rpartition(":")[2])
        with ExitStack() as stack:
            for _ in range(64):
                stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            wait_until(lambda: sum(shares(running.pid, port)) >= 64)
            assert min(shares(running.pid, port)) > 8  # fewer than once in 10^9 times


def shares(parent: int, port: int) -> list[int]:
    """Connections to the port that each worker has accepted."""
    established = {
        line.split()[9]
        for line in Path("/proc/net/tcp").read_text().splitlines()[1:]
        if line.split()[1].endswith(f":{port:04X}") and line.split()[3] == "01"
    }
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    counts = []
    for child in children:
        links = [str(path.readlink()) for path in Path(f"/proc/{child}/fd").iterdir()]
        own = sum(f"socket:[{inode}]" in links for inode in established)
        if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes():
            counts.append(own)
    return counts
