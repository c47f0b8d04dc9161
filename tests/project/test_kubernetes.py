"""The manifests in deploy/: rendered where kubectl is, and held against Kubernetes' schemas."""

import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from service.settings import Settings
from tests.fences import ROOT

FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.33", "1.37")  # image volumes came with 1.33
WAYS = ("base", "overlays/volume", "overlays/oci-image", "overlays/production")
FILES = [path for path in FOLDER.rglob("*.yaml") if path.name != "kustomization.yaml"]
COMPOSE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]
with_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="renders with kubectl")


def rendered(way: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send."""
    command = ["kubectl", "kustomize", str(FOLDER / way)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def deployment(way: str) -> dict[str, Any]:
    """The pod's specification."""
    (found,) = [one for one in rendered(way) if one["kind"] == "Deployment"]
    pod: dict[str, Any] = found["spec"]["template"]["spec"]
    return pod


@with_kubectl
@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("way", WAYS)
def test_what_is_rendered_is_what_the_schemas_allow(way: str, version: str) -> None:
    manifests = rendered(way)
    kinds = {manifest["kind"] for manifest in manifests}
    assert {
        "Deployment",
        "HorizontalPodAutoscaler",
        "PodDisruptionBudget",
        "NetworkPolicy",
    } <= kinds
    for manifest in manifests:
        kubernetes_validate.validate(manifest, version, strict=True)


@with_kubectl
@pytest.mark.parametrize("way", WAYS)
def test_pods_are_restricted(way: str) -> None:
    """What the Pod Security Standard `restricted` asks for, and a read-only root."""
    pod = deployment(way)
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


@with_kubectl
@pytest.mark.parametrize("way", WAYS)
def test_a_pod_is_given_the_time_that_it_needs_to_end(way: str) -> None:
    pod = deployment(way)
    variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"]}
    drain = float(variables["PERSONA_DRAIN_SECONDS"])
    deadline = Settings.model_fields["deadline_ms"].default / 1000
    assert pod["terminationGracePeriodSeconds"] > drain + deadline


@with_kubectl
@pytest.mark.parametrize("way", WAYS)
def test_every_variable_is_a_setting(way: str) -> None:
    names = [one["name"] for one in deployment(way)["containers"][0]["env"]]
    assert {name.removeprefix("PERSONA_").lower() for name in names} <= set(Settings.model_fields)


@pytest.mark.parametrize("path", [*FILES, ROOT / "deploy" / "kserve" / "inference-service.yaml"])
def test_every_file_is_one_named_object(path: Path) -> None:
    (manifest,) = yaml.safe_load_all(path.read_text())
    assert {"apiVersion", "kind", "metadata"} <= manifest.keys()
    assert manifest["metadata"]["name"].startswith("persona")


def test_the_predictor_of_kserve_is_a_container_as_kubernetes_wants_it() -> None:
    """KServe's own schema is not at hand: its container and volumes are those of a pod."""
    path = ROOT / "deploy" / "kserve" / "inference-service.yaml"
    predictor = yaml.safe_load(path.read_text())["spec"]["predictor"]
    pod = {"containers": predictor["containers"], "volumes": predictor["volumes"]}
    manifest = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "persona"}, "spec": pod}
    kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)


@pytest.mark.parametrize("name", COMPOSE)
def test_every_service_of_compose_runs_with_as_little_as_it_needs(name: str) -> None:
    service = COMPOSE[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_files_that_compose_mounts_are_there() -> None:
    mounts = [mount for service in COMPOSE.values() for mount in service.get("volumes", [])]
    sources = [mount.split(":")[0] for mount in mounts if mount.startswith("./")]
    assert sources
    assert not [source for source in sources if not (ROOT / source).exists()]
