"""Closed by default: real API processes that others could reach, with and without a key."""

import sys
from pathlib import Path

import httpx
import pytest

from api import exposure
from api.exposure import check_exposure
from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.store import keys
from tests.support.processes import Api, Process, Valkey
from tests.support.waiting import wait_until

OPEN = {"HOST": "0.0.0.0"}


@pytest.mark.parametrize("service", ["api", "worker", "worker.outbound"])
def test_a_service_does_not_start_with_a_misspelt_setting(valkey: Valkey, tmp_path: Path, service: str) -> None:
    environment = {"REDIS_URL": valkey.url, "REDIS_MAXMEMORY_BYTE": str(256 << 20)}
    with Process([sys.executable, "-m", service], tmp_path / "log", environment) as process:
        assert process.wait(60) == 1
        *_, line = process.output().splitlines()
    assert line.startswith("darkroom ")
    assert line.endswith(
        ": REDIS_MAXMEMORY_BYTE is not a setting; REDIS_MAXMEMORY_BYTES is: rename the variable, or remove it"
    )


@pytest.mark.parametrize(
    ("environment", "start", "end"),
    [
        (OPEN, "HOST is 0.0.0.0, so others can reach the API, but there is no API key: ", "delete all jobs"),
        (OPEN | {"BIND": "192.0.2.1"}, "BIND is 192.0.2.1, so others can reach", "delete all jobs"),
        ({"DOMAIN": "a.example"}, "DOMAIN is a.example, so others can reach", "delete all jobs"),
        (OPEN | {"API_KEYS": "{}"}, "HOST is 0.0.0.0, so", "(API_KEYS contains no key)"),
        (OPEN | {"API_KEYS": "null"}, "HOST is 0.0.0.0, so", "(API_KEYS contains no key)"),
    ],
)
def test_an_api_that_others_can_reach_does_not_start_without_a_key(
    valkey: Valkey, tmp_path: Path, environment: dict[str, str], start: str, end: str
) -> None:
    environment = {"REDIS_URL": valkey.url, "REDIS_MAXMEMORY_BYTES": str(256 << 20)} | environment
    with Process([sys.executable, "-m", "api"], tmp_path / "log", environment) as process:
        assert process.wait(60) == 1
        (line,) = process.output().splitlines()
    assert line.startswith(f"darkroom api: {start}")
    assert line.endswith(end)
    assert "keys create OWNER` (docs/KEYS.md)" in line
    assert "x" * 20 not in line


@pytest.mark.parametrize(
    "environment",
    [
        OPEN | {"API_KEYS": '{"alice": "a-long-random-key"}'},
        OPEN | {"BIND": "127.0.0.1"},  # a container whose port is published on the loopback address
    ],
)
def test_it_starts_with_a_key_or_if_only_this_machine_can_reach_it(
    valkey: Valkey, tmp_path: Path, environment: dict[str, str]
) -> None:
    with Api(valkey.url, tmp_path / "log", **environment) as api:
        assert "WARNING" not in api.output()
        assert api.output().count("INFO api.exposure: who may call: ") == 1


def test_it_starts_with_a_managed_key(valkey: Valkey, tmp_path: Path) -> None:
    with valkey.client as client:
        client.hset(keys.API_KEYS, "id", "a record")
    with Api(valkey.url, tmp_path / "log", **OPEN):
        pass


def test_open_to_everybody_is_said_at_each_start(valkey: Valkey, tmp_path: Path) -> None:
    with Api(valkey.url, tmp_path / "log", **OPEN, OPEN_TO_EVERYBODY="1") as api:
        assert httpx.get(f"{api.url}/v1/jobs").status_code == 200
        wait_until(lambda: "WARNING" in api.output(), what="a warning")
        warnings = [line for line in api.output().splitlines() if line.startswith("WARNING")]
    expected = "HOST is 0.0.0.0, and everybody may submit, read and delete all jobs without a key"
    assert warnings == [f"WARNING api.exposure: OPEN_TO_EVERYBODY: {expected}"]


def test_it_does_not_start_while_redis_does_not_say_whether_there_is_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "REDIS_WAIT_SECONDS_MAX", 0)
    with pytest.raises(SettingsError, match="and Redis does not say whether there is a key"):
        check_exposure(ApiSettings(host="0.0.0.0", redis_url="redis://127.0.0.1:1/0"), [])
