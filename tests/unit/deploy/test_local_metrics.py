"""Each program of `make run` has a port of its own for Prometheus."""

import socket
from configparser import RawConfigParser
from pathlib import Path

import pytest

from deploy.local.__main__ import LocalSettings, _check_metrics_port, _write_config
from jobs.errors import SettingsError
from jobs.settings import load


@pytest.mark.parametrize("port", ["9100", None])
def test_the_workers_have_the_next_two_ports(port: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if port is not None:
        monkeypatch.setenv("METRICS_PORT", port)
    ports = load(LocalSettings).metrics_ports
    config = RawConfigParser()
    config.read(_write_config(tmp_path, embedded=False, metrics_ports=ports))
    programs = ("api", "worker", "outbound")
    found = [config.get(f"program:{name}", "environment", fallback="") for name in programs]
    assert found == ([f'METRICS_PORT="{9100 + at}"' for at in range(3)] if port else ["", "", ""])


@pytest.mark.parametrize("port", ["0", "65534", "http"])
def test_a_port_without_two_next_ones_is_refused(port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METRICS_PORT", port)
    with pytest.raises(SettingsError, match="METRICS_PORT"):
        load(LocalSettings)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="METRICS_PORT: port"):
        _check_metrics_port(taken.getsockname()[1])
