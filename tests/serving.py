"""A real service on a free port, in a thread of the test's process."""

import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from service.app import create_app
from service.http.connection import limited
from service.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float = 240) -> None:
    """Waits for what must come true; the limit only ends a test that hangs."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "this never came true"
        time.sleep(0.01)


def status_of(url: str) -> int:
    """The status of a GET; 0 if nobody answers."""
    try:
        return httpx.get(url).status_code
    except httpx.TransportError:
        return 0


@contextmanager
def serving(
    artifacts: Path, root_path: str = "", on_port: int | None = None, **settings: Any
) -> Iterator[httpx.Client]:
    """A client of a running service, which may be ready or broken but is no longer starting."""
    chosen = Settings(artifacts=artifacts, **settings)
    app = create_app(chosen)
    port = on_port or free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http=limited(chosen),
        access_log=False,
        log_level="critical",
        ws="none",
        proxy_headers=False,  # as `persona serve`
        root_path=root_path,
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        wait_until(lambda: server.started)
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            wait_until(lambda: "starting" not in client.get("/health/ready").text)
            yield client
    finally:
        server.should_exit = True
        thread.join()


@contextmanager
def running_service(artifacts: Path) -> Iterator[str]:
    """Address of `persona serve` in a process of its own, once it is ready."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    options = ["--artifacts", str(artifacts), "--port", str(port)]
    command = [sys.executable, "-m", "persona", "serve", *options]
    with (
        tempfile.TemporaryFile("w+") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            ready = f"{url}/health/ready"
            wait_until(lambda: process.poll() is not None or status_of(ready) == 200)
            log.seek(0)
            assert process.poll() is None, log.read()
            yield url
        finally:
            process.terminate()
