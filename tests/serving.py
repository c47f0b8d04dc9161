"""A real service on a free port, in a thread of the test's process."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from persona.serve import HTTP
from service.app import create_app
from service.settings import Settings


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
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
def serving(artifacts: Path, root_path: str = "", **settings: Any) -> Iterator[httpx.Client]:
    """A client of a running service, which may be ready or broken but is no longer starting."""
    app = create_app(Settings(artifacts=artifacts, **settings))
    port = free_port()
    config = uvicorn.Config(
        app,
        port=port,
        http=HTTP,
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
