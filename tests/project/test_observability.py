"""The dashboard and the alerts: what they ask for exists, and Prometheus takes it."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.observability.dashboard import FILE, PANELS, written
from service.keys import add_key
from service.traffic import EVERY
from tests.fences import ROOT
from tests.serving import free_port, serving, wait_until
from tests.versions import add_version, flip

FOLDER = ROOT / "deploy" / "observability"
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text())["groups"][0]["rules"]
QUERIES = [query for _, _, queries in PANELS for query, _ in queries]
ALERTS = [rule["expr"] for rule in RULES]
NEEDS_PROMETHEUS = "needs prometheus and promtool, for example of Debian's package prometheus"
with_prometheus = pytest.mark.skipif(shutil.which("promtool") is None, reason=NEEDS_PROMETHEUS)
HISTORIES = [["item 0", "new"], [], ["item 1"] * 20]


@pytest.fixture(scope="module")
def client(
    watched_artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A service that has had traffic of all kinds, and a version that is damaged."""
    folder = tmp_path_factory.mktemp("service")
    file = folder / "keys.json"
    headers = {"x-api-key": add_key(file, "shop", limits=["1000/second"])}
    root = shutil.copytree(watched_artifacts, folder / "artifacts")
    flip(add_version(root / "watched" / "1", root, "watched", "2") / "weights.bin")
    with serving(root, keys_file=file) as client:
        client.post("/v1/encode")
        traffic(client, headers)
        client.headers.update(headers)
        yield client


def traffic(client: httpx.Client, headers: dict[str, str]) -> None:
    for _ in range(EVERY):
        client.post("/v1/encode", json={"histories": HISTORIES}, headers=headers)


def exposed(client: httpx.Client) -> set[str]:
    text = client.get("/metrics").text
    families = text_string_to_metric_families(text)
    return {sample.name for family in families for sample in family.samples}


@pytest.mark.parametrize("query", [*QUERIES, *ALERTS])
def test_every_metric_that_is_asked_for_is_exposed(client: httpx.Client, query: str) -> None:
    asked = set(re.findall(r"\bpersona_\w+", query))
    assert asked <= exposed(client)
    assert asked or "up{" in query


def test_the_dashboard_is_the_one_that_its_script_writes() -> None:
    assert FILE.read_text() == written()


def test_every_alert_has_a_section_of_the_operations_page() -> None:
    page = (ROOT / "docs" / "operations.md").read_text()
    assert not [rule["alert"] for rule in RULES if f"`{rule['alert']}`" not in page]


def test_the_provisioned_data_source_is_the_one_of_the_panels() -> None:
    provisioning = FOLDER / "grafana" / "provisioning" / "datasources" / "prometheus.yml"
    (source,) = yaml.safe_load(provisioning.read_text())["datasources"]
    panels = json.loads(FILE.read_text())["panels"]
    assert {panel["datasource"]["uid"] for panel in panels} == {source["uid"]}


@with_prometheus
@pytest.mark.parametrize(("check", "file"), [("rules", "alerts.yml"), ("config", "prometheus.yml")])
def test_promtool_takes_the_files(check: str, file: str) -> None:
    done = subprocess.run(
        ["promtool", "check", check, file], cwd=FOLDER, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@with_prometheus
@pytest.mark.slow
def test_every_query_of_the_dashboard_returns_data(client: httpx.Client, tmp_path: Path) -> None:
    """Through a real Prometheus, which scrapes the service each second."""
    port = free_port()
    config = (FOLDER / "prometheus.yml").read_text()
    target = f"127.0.0.1:{client.base_url.port}"
    config = config.replace("persona:8000", target).replace("5s", "1s")
    (tmp_path / "prometheus.yml").write_text(config)
    shutil.copy(FOLDER / "alerts.yml", tmp_path)
    command = [
        "prometheus",
        f"--config.file={tmp_path / 'prometheus.yml'}",
        f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    headers = {"x-api-key": client.headers["x-api-key"]}
    with subprocess.Popen(command) as process:
        try:
            for query in QUERIES:
                wait_until(partial(has_data, client, headers, port, query), seconds=60)
        finally:
            process.terminate()


def has_data(client: httpx.Client, headers: dict[str, str], port: int, query: str) -> bool:
    """Whether Prometheus answers with numbers, while there is traffic."""
    traffic(client, headers)
    client.get("/nowhere")
    asked = {"query": query.replace("$__rate_interval", "30s")}
    try:
        answer = httpx.get(f"http://127.0.0.1:{port}/api/v1/query", params=asked)
    except httpx.TransportError:
        return False
    assert answer.status_code != 400, answer.text
    if answer.status_code != 200:
        return False
    found = answer.json()["data"]["result"]
    return any(one["value"][1] != "NaN" for one in found)
