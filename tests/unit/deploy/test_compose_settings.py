"""Which settings of the file .env reach which service of docker-compose.yml."""

from typing import Any

import pytest
import yaml
from pydantic_settings import BaseSettings

from api.settings import ApiSettings
from tests.support.processes import ROOT
from worker.outbound.settings import OutboundSettings
from worker.settings import WorkerSettings

OF_THE_IMAGE = {"ALIVE_FILE"}
PASSWORDS = {"REDIS_PASSWORD", "REDIS_WORKER_PASSWORD"}
S3 = {name for name in OutboundSettings.model_fields if name.startswith("s3_")}


class _Loader(yaml.SafeLoader):
    """Reads compose's tags as what stands behind them."""


_Loader.add_constructor("!override", lambda loader, node: loader.construct_sequence(node))
_Loader.add_constructor("!reset", lambda _loader, _node: None)


def services(name: str) -> Any:
    return yaml.load((ROOT / name).read_text(), _Loader)["services"]


@pytest.mark.parametrize(
    ("service", "settings", "without"),
    [("worker", WorkerSettings, S3), ("outbound", OutboundSettings, set())],
)
def test_a_service_gets_its_own_settings_alone(service: str, settings: type[BaseSettings], without: set[str]) -> None:
    """No image from strangers is decoded, and no other server called, beside the secrets of another service."""
    configured = services("docker-compose.yml")[service]
    own = {name.upper() for name in settings.model_fields.keys() - without} - OF_THE_IMAGE
    assert configured["environment"].keys() == own
    assert "env_file" not in configured


def test_a_worker_gets_the_key_of_s3_if_its_uploads_are_there() -> None:
    added = services("docker-compose.s3.yml")["worker"]["environment"]
    assert added.keys() == {name.upper() for name in S3 & WorkerSettings.model_fields.keys()}


def test_the_api_has_the_memory_that_its_streams_may_take() -> None:
    """Measured: 45 MiB for each tar of images of 10 MiB, while Redis takes nothing more."""
    settings, limit = ApiSettings(), services("docker-compose.yml")["api"]["mem_limit"]
    gib = int(limit.removeprefix("${API_MEMORY_LIMIT:-").removesuffix("g}"))
    assert gib << 30 >= 1.25 * settings.upload_streams_max * 4.5 * settings.item_bytes_max


@pytest.mark.parametrize("service", ["redis", "edge", "prometheus"])
def test_a_service_without_settings_gets_no_secret_of_another(service: str) -> None:
    configured = services("docker-compose.yml")[service]
    assert "env_file" not in configured
    assert not configured.get("environment", {}).keys() - {*PASSWORDS, "REDIS_MAXMEMORY_BYTES", "BIND", "DOMAIN"}


@pytest.mark.parametrize("service", ["worker", "outbound", "api"])
def test_a_service_on_another_host_connects_as_its_own_user_and_sees_no_folder_of_uploads(service: str) -> None:
    configured = services("docker-compose.worker.yml")[service]
    user, password = ("api", "REDIS_PASSWORD") if service == "api" else ("worker", "REDIS_WORKER_PASSWORD")
    environment = configured["environment"]
    assert environment["REDIS_USERNAME"] == user
    assert environment["REDIS_PASSWORD"].startswith(f"${{{password}:")
    assert environment["REDIS_URL"].startswith("${REDIS_URL:?rediss://")
    assert "uploads" not in str(configured["volumes"])
    assert configured["extends"] == {"file": "docker-compose.yml", "service": service}


def test_a_worker_on_another_host_may_take_uploads_from_s3() -> None:
    added = services("docker-compose.worker.yml")["worker"]["environment"].keys()
    assert {name.upper() for name in S3 & WorkerSettings.model_fields.keys()} <= added
