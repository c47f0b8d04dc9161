"""`docker compose --profile observability` for real: Prometheus scrapes, every query answers."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml

from tests.fences import ROOT
from tests.project.test_observability import QUERIES, has_data
from tests.serving import free_port, status_of, wait_until
from tests.versions import add_version, flip

COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]

pytestmark = [
    pytest.mark.skipif(
        "PERSONA_TEST_CONTAINER" not in os.environ,
        reason="builds an image: set PERSONA_TEST_CONTAINER=1 where docker and compose are",
    ),
    pytest.mark.timeout(900),
]


def docker(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *words],
        cwd=ROOT,
        env=os.environ | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


def has_image(name: str) -> bool:
    return docker("image", "inspect", name).returncode == 0 or docker("pull", name).returncode == 0


@pytest.fixture(scope="module")
def prometheus_image() -> str:
    """The image of the compose file, or Debian's Prometheus where no registry is reached."""
    _, _, default = COMPOSE["prometheus"]["image"].rstrip("}").partition(":-")
    if has_image(default):
        return str(default)
    name, folder = "persona-prometheus", "tests/project"
    built = docker("build", "--tag", name, "--file", f"{folder}/prometheus.Dockerfile", folder)
    if built.returncode:
        pytest.skip(f"neither {default} nor Debian's package can be had")
    return name


@pytest.fixture(scope="module")
def artifacts(watched_artifacts: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows its training clicks, and a damaged version; anybody may read them."""
    folder = tmp_path_factory.mktemp("compose")
    root = shutil.copytree(watched_artifacts, folder / "artifacts")
    flip(add_version(root / "watched" / "1", root, "watched", "2") / "weights.bin")
    for path in (folder, root, *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    for parent in list(folder.parents)[:2]:  # of pytest, which closes them to others
        parent.chmod(parent.stat().st_mode | 0o011)
    return root


@pytest.fixture(scope="module")
def addresses(prometheus_image: str, artifacts: Path) -> Iterator[tuple[str, str]]:
    """Of the service and of Prometheus; Grafana too, where its image can be had."""
    ports = [str(free_port()) for _ in range(3)]
    names = ("PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
    environment = dict(zip(names, ports, strict=True)) | {"PROMETHEUS_IMAGE": prometheus_image}
    environment |= {"COMPOSE_PROJECT_NAME": "persona-observed"}
    more = artifacts.parent / "more.yml"
    volumes = {"volumes": [f"{artifacts}:/artifacts:ro"]}
    more.write_text(yaml.safe_dump({"services": {"persona": volumes}}))
    compose = partial(
        docker,
        *("compose", "--file", "docker-compose.yml", "--file", str(more)),
        *("--profile", "observability"),
        **environment,
    )
    services = ["persona", "prometheus"]
    services += ["grafana"] if has_image(COMPOSE["grafana"]["image"]) else []
    try:
        up = compose("up", "--build", "--wait", *services)
        assert up.returncode == 0, up.stdout + compose("logs").stdout
        if "grafana" in services:
            wait_until(lambda: status_of(f"http://127.0.0.1:{ports[2]}/api/health") == 200)
        yield f"http://127.0.0.1:{ports[0]}", ports[1]
    finally:
        compose("down", "--volumes")


def test_every_query_of_the_dashboard_returns_data_in_compose(addresses: tuple[str, str]) -> None:
    service, port = addresses
    with httpx.Client(base_url=service, timeout=30) as client:
        for query in QUERIES:
            wait_until(partial(has_data, client, {}, int(port), query), seconds=90)


def test_prometheus_has_loaded_the_alerts(addresses: tuple[str, str]) -> None:
    _, port = addresses
    answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/rules").json()
    (group,) = answer["data"]["groups"]
    assert {rule["health"] for rule in group["rules"]} <= {"ok", "unknown"}
    assert len(group["rules"]) > 5
