"""The image: how large it is, and how long a container takes until it answers."""

import socket
import statistics
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer

from bench.results import record

ROOT = Path(__file__).parents[1]
IMAGE = "persona"
COMMAND = "python -m bench container"


def container(
    starts: Annotated[int, typer.Option(help="Starts; the median counts.", min=1)] = 7,
) -> None:
    """Build the image; measure its size and the seconds from `docker run` to ready."""
    docker("build", "--tag", IMAGE, str(ROOT))
    size = int(docker("image", "inspect", IMAGE, "--format", "{{.Size}}"))
    record("image_megabytes", round(size / 1e6, 1), None, COMMAND)
    seconds = [seconds_to_ready() for _ in range(starts)]
    record("seconds_to_ready", round(statistics.median(seconds), 3), None, COMMAND)
    typer.echo(f"{size / 1e6:.0f} MB; ready after {', '.join(f'{s:.2f}' for s in seconds)} s")


def seconds_to_ready() -> float:
    """From `docker run` until `/health/ready` answers 200, polled every 5 ms."""
    port = _free_port()
    started = time.perf_counter()
    options = ["--rm", "--detach", "--read-only", "--tmpfs", "/tmp"]
    running = docker("run", *options, "--publish", f"127.0.0.1:{port}:8000", IMAGE)
    try:
        while not _ready(port):
            if time.perf_counter() - started > 120:
                raise TimeoutError(f"container {running} is not ready after 120 s")
            time.sleep(0.005)
        return time.perf_counter() - started
    finally:
        docker("stop", running)


def docker(*words: str) -> str:
    """What a docker command prints.

    Raises:
        subprocess.CalledProcessError: it failed; its own message went to stderr.
    """
    done = subprocess.run(["docker", *words], stdout=subprocess.PIPE, text=True, check=True)
    return done.stdout.strip()


def _ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/ready", timeout=5) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError):  # not listening yet, or not ready yet
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
