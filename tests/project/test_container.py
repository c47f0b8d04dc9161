"""The image, built and run as docker-compose.yml says; .ci/run starts these tests."""

import os
import subprocess
from collections.abc import Iterator
from importlib.metadata import version

import httpx
import numpy as np
import pytest

from docs.pictures import README, ROOT, first_request
from tests.serving import free_port, serving

LOCK = ROOT / "requirements/serve.txt"

pytestmark = [
    pytest.mark.skipif(
        "PERSONA_TEST_CONTAINER" not in os.environ,
        reason="builds an image: set PERSONA_TEST_CONTAINER=1 where docker and compose are",
    ),
    pytest.mark.timeout(900),
]


class Container:
    """The service of docker-compose.yml, running under its own project name."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._environment = os.environ | {"PORT": str(port), "COMPOSE_PROJECT_NAME": "persona-test"}

    def compose(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["docker", "compose", *words],
            cwd=ROOT,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )

    def inside(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self.compose("exec", "-T", "persona", *words)


@pytest.fixture(scope="module")
def container() -> Iterator[Container]:
    running = Container(free_port())
    try:
        up = running.compose("up", "--build", "--wait")
        assert up.returncode == 0, up.stdout + running.compose("logs").stdout
        yield running
    finally:
        running.compose("down", "--volumes")


def test_the_image_answers_the_first_request_as_a_local_service_does(container: Container) -> None:
    request = first_request(README.read_text())
    with serving(ROOT / "artifacts") as client:
        local = client.post("/v1/encode", json=request).json()
    answered = httpx.post(f"{container.url}/v1/encode", json=request).json()
    for ours, theirs in zip(local["users"], answered["users"], strict=True):
        assert np.allclose(theirs["embedding"], ours["embedding"], rtol=0, atol=1e-5)
        weights, expected = theirs["attention"]["weights"], ours["attention"]["weights"]
        assert np.allclose(weights, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("module", ["torch", "pyarrow", "model", "export"])
def test_the_image_holds_only_what_serves(container: Container, module: str) -> None:
    imported = container.inside("python", "-c", f"import {module}")
    assert f"No module named '{module}'" in imported.stdout


def test_the_image_holds_the_locked_versions(container: Container) -> None:
    script = (
        "from importlib.metadata import distributions as all\n"
        "print(*(f'{package.name}=={package.version}' for package in all()))"
    )
    installed = container.inside("python", "-c", script).stdout.lower().replace("_", "-").split()
    unlocked = {line for line in installed if f"{line} " not in LOCK.read_text()}
    assert unlocked == {f"persona-encoder=={version('persona-encoder')}"}


def test_the_container_runs_as_nobody(container: Container) -> None:
    assert container.inside("id", "-u").stdout.strip() == "65532"


def test_the_container_cannot_write_its_root(container: Container) -> None:
    assert "Read-only file system" in container.inside("touch", "/artifacts/new").stdout


def test_the_container_drains_and_ends_when_asked(container: Container) -> None:
    stopped = container.compose("stop", "--timeout", "15")
    assert stopped.returncode == 0
    state = container.compose("ps", "--all", "--format", "{{.ExitCode}}").stdout.strip()
    assert state in {"0", "143"}  # 143: ended by SIGTERM; 137: killed, because it did not end
