"""`persona serve` as a process, and what a test wants to know of its workers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.serving import free_port, wait_until

PERSONA = [sys.executable, "-m", "persona"]


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
        running.communicate(timeout=60)


def wait_until_ready(running: subprocess.Popen[str], url: str, n_workers: int = 1) -> set[int]:
    """Waits for at least so many workers; their process ids."""
    found: set[int] = set()

    def all_are() -> bool:
        nonlocal found
        found = ready(url)
        return running.poll() is not None or len(found) >= n_workers

    wait_until(all_are)
    assert running.returncode is None, f"it ended with {running.returncode}"
    return found


def workers(url: str) -> dict[int, dict[str, Any]]:
    """What `/health/ready` says of each worker, by process id; none while nobody answers."""
    try:
        listed = httpx.get(f"{url}/health/ready").json()["workers"]
    except httpx.TransportError:  # a worker that hangs gives no answer either
        return {}
    return {worker["process_id"]: worker for worker in listed}


def ready(url: str) -> set[int]:
    """The process ids of the workers that are ready."""
    return {number for number, worker in workers(url).items() if worker["state"] == "ready"}


def metrics_of(url: str) -> str:
    try:
        return httpx.get(f"{url}/metrics").text
    except httpx.TransportError:
        return ""
