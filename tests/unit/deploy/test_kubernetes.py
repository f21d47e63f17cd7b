"""deploy/kubernetes as `kubectl kustomize` builds it: valid for Kubernetes, and with the limits of compose."""

import re
import shutil
import subprocess
from typing import Any

import kubernetes_validate
import pytest
import yaml

from jobs.setting_names.misspelt import SETTING_NAMES
from tests.support.processes import ROOT

FOLDER = ROOT / "deploy/kubernetes"
OF_THE_SERVER = {"REDIS_WORKER_PASSWORD"}
KUBERNETES_VERSIONS = ("1.28", "1.34")
pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="there is no kubectl (Debian: kubernetes-client)"
)


@pytest.fixture(scope="module")
def built() -> list[dict[str, Any]]:
    command = ["kubectl", "kustomize", str(FOLDER)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    return list(yaml.safe_load_all(done.stdout))


@pytest.fixture(scope="module")
def pods(built: list[dict[str, Any]]) -> dict[str, Any]:
    """The specification of the pods of each service."""
    kinds = ("Deployment", "StatefulSet")
    return {it["metadata"]["name"]: it["spec"]["template"]["spec"] for it in built if it["kind"] in kinds}


@pytest.fixture(scope="module")
def compose() -> Any:
    return yaml.safe_load((ROOT / "docker-compose.yml").read_text())["services"]


@pytest.mark.parametrize("version", KUBERNETES_VERSIONS)
def test_kubernetes_knows_every_field(built: list[dict[str, Any]], version: str) -> None:
    assert len(built) == 15
    for resource in built:
        kubernetes_validate.validate(resource, version, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_refused(built: list[dict[str, Any]]) -> None:
    """The check above can fail."""
    (deployment, *_) = [it for it in built if it["kind"] == "Deployment"]
    wrong = deployment | {"spec": deployment["spec"] | {"replica": 2}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES_VERSIONS[0], strict=True)


@pytest.mark.parametrize("service", ["redis", "api", "worker", "outbound"])
def test_a_pod_has_the_limits_that_it_has_under_compose(pods: dict[str, Any], compose: Any, service: str) -> None:
    (container,) = pods[service]["containers"]
    own = compose[service]
    stop_seconds = int(own["stop_grace_period"].removesuffix("s"))
    pre_stop_seconds = int(container["lifecycle"]["preStop"]["exec"]["command"][1]) if "lifecycle" in container else 0
    assert pods[service]["terminationGracePeriodSeconds"] == stop_seconds + pre_stop_seconds
    memory = re.sub(r"\$\{\w+:-(.*)\}", r"\1", own["mem_limit"])
    assert container["resources"]["limits"]["memory"].lower().removesuffix("i") == memory
    assert container["image"].removesuffix(":latest") == re.search(r"darkroom-\w+", own["image"])[0]
    assert container.get("command") == own.get("entrypoint")


@pytest.mark.parametrize("service", ["redis", "api", "worker", "outbound"])
def test_a_pod_can_do_no_more_than_it_must(pods: dict[str, Any], service: str) -> None:
    pod = pods[service]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["automountServiceAccountToken"] is False
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "livenessProbe"} <= container.keys()
    variables = {it["name"]: it for it in container["env"]}
    assert not variables.keys() - SETTING_NAMES - OF_THE_SERVER - {"TMPDIR"}
    secrets = {name for name, it in variables.items() if "secretKeyRef" in it.get("valueFrom", {})}
    assert secrets == {name for name in variables if "PASSWORD" in name or name == "API_KEYS"}


def test_the_settings_have_known_names(built: list[dict[str, Any]]) -> None:
    (settings,) = [it["data"] for it in built if it["kind"] == "ConfigMap"]
    assert not settings.keys() - SETTING_NAMES
    assert settings["UPLOADS_URL"] == "redis:", "no folder is shared by all nodes"


def test_each_service_connects_as_its_own_user(pods: dict[str, Any]) -> None:
    urls = {
        service: {it["name"]: it.get("value") for it in pod["containers"][0]["env"]}.get("REDIS_URL")
        for service, pod in pods.items()
    }
    worker = "redis://worker@redis:6379/0"
    assert urls == {"redis": None, "api": "redis://api@redis:6379/0", "worker": worker, "outbound": worker}


def test_workers_scale_by_the_age_of_the_oldest_work() -> None:
    scaled = yaml.safe_load((FOLDER / "keda.yaml").read_text())["spec"]
    assert scaled["scaleTargetRef"]["name"] == "worker"
    for trigger in scaled["triggers"]:
        assert trigger["metricType"] == "Value"
        assert re.fullmatch(
            r'max\(darkroom_queue_oldest_seconds\{[^}]*lane="(interactive|bulk)"\}\) or vector\(0\)',
            trigger["metadata"]["query"],
        )
