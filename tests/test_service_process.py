"""`persona serve` as a process: workers, signals, and what it never imports."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from tests.serving import free_port, status_of, wait_until

PERSONA = [sys.executable, "-c", "from persona.cli import main; main()"]
HISTORIES = {"histories": [["item 1"], []]}


@contextmanager
def process(*options: str, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`persona serve` with these options, and its address."""
    port = free_port()
    running = subprocess.Popen(
        [*PERSONA, "serve", "--port", str(port), *options],
        env=os.environ | environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield running, f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.communicate(timeout=30)


def test_the_service_never_imports_pytorch() -> None:
    script = "import sys, service.app, persona.serve; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_two_workers_answer_and_add_up_their_metrics(tiny_artifacts: Path) -> None:
    def ready_workers(url: str) -> bool:
        return "persona_ready_workers 2.0" in httpx.get(f"{url}/metrics").text

    with process("--artifacts", str(tiny_artifacts), "--workers", "2") as (_, url):
        wait_until(lambda: status_of(f"{url}/health/ready") == 200)
        wait_until(lambda: ready_workers(url))
        for _ in range(20):  # each over a connection of its own, to either worker
            assert httpx.post(f"{url}/v1/encode", json=HISTORIES).status_code == 200
        counted = 'persona_histories_total{model="tiny"} 40.0'
        wait_until(lambda: counted in httpx.get(f"{url}/metrics").text)


def test_a_worker_that_is_to_end_is_not_ready_but_answers(tiny_artifacts: Path) -> None:
    settings = {"PERSONA_ARTIFACTS": str(tiny_artifacts), "PERSONA_DRAIN_SECONDS": "1.5"}
    with process("--workers", "1", **settings) as (running, url):
        wait_until(lambda: status_of(f"{url}/health/ready") == 200)
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
        wait_until(lambda: status_of(f"{url}/health/ready") == 200)
        running.terminate()
        _, log = running.communicate(timeout=30)
    assert f"Serving {tiny_artifacts} on {url}" in log
    assert f"curl {url}/v1/models" in log


def test_a_wrong_setting_is_named_with_its_value() -> None:
    with process(PERSONA_MAX_BATCH_TOKENS="0") as (running, _):
        _, log = running.communicate(timeout=30)
    assert "PERSONA_MAX_BATCH_TOKENS=0: Input should be greater than" in log
    assert running.returncode == 2
