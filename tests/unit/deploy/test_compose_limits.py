"""What docker-compose.yml lets each container do: memory, processes, log, networks. Read as YAML, without Docker."""

import re
from typing import Any

import pytest
import yaml

from bench.hostile.rows import MEMORY_BYTES_MAX
from tests.support.processes import ROOT

COMPOSE: Any = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
UNITS = {"k": 10, "m": 20, "g": 30}
GO_OUT = {"outbound", "edge"}  # it asks for certificates


def default_of(value: object) -> str:
    """The value with the variables' defaults."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", str(value))


def bytes_of(value: object) -> int:
    size = default_of(value)
    return int(size[:-1]) << UNITS[size[-1]]


def leads_out(network: str) -> bool:
    """Whether a container on it reaches other hosts: Docker neither isolates it nor keeps the container's address."""
    options = COMPOSE["networks"][network] or {}
    masquerade = options.get("driver_opts", {}).get("com.docker.network.bridge.enable_ip_masquerade")
    return not options.get("internal") and masquerade != "false"


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_has_a_limit_of_all_that_it_may_take(service: str) -> None:
    configured = SERVICES[service]
    assert 0 < int(default_of(configured["pids_limit"])) <= 1024
    assert configured["logging"]["driver"] == "local"
    options = configured["logging"]["options"]
    assert bytes_of(options["max-size"]) * int(options["max-file"]) <= 100 << 20
    assert 0 < float(default_of(configured["cpus"])) <= 2
    assert 0 < bytes_of(configured["mem_limit"]) <= bytes_of("4g")


@pytest.mark.parametrize("service", SERVICES)
def test_a_container_gains_no_rights(service: str) -> None:
    configured = SERVICES[service]
    assert configured["read_only"] is True
    assert configured["cap_drop"] == ["ALL"]
    assert configured["security_opt"] == ["no-new-privileges:true"]
    assert not configured.keys() & {
        "cap_add",
        "privileged",
        "devices",
        "pid",
        "ipc",
        "network_mode",
        "user",
        "userns_mode",
    }


def test_outbound_and_the_edge_alone_go_out() -> None:
    assert {name for name, it in SERVICES.items() if any(map(leads_out, it["networks"]))} == GO_OUT
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == SERVICES["worker"]["networks"] == ["inside"]


def test_nothing_is_published_beyond_this_machine_but_the_edge() -> None:
    ports = {name: list(map(default_of, it["ports"])) for name, it in SERVICES.items() if "ports" in it}
    beyond = {name for name, own in ports.items() if not all(port.startswith("127.0.0.1:") for port in own)}
    assert (ports.keys(), beyond) == ({"api", "edge", "prometheus"}, {"edge"})
    assert SERVICES["edge"]["profiles"] == ["tls"]


def test_redis_has_room_for_a_rewrite_of_its_file() -> None:
    """It copies the pages that are written meanwhile."""
    maxmemory = int(default_of(SERVICES["redis"]["environment"]["REDIS_MAXMEMORY_BYTES"]))
    assert bytes_of(SERVICES["redis"]["mem_limit"]) >= 2 * maxmemory + (256 << 20)


def test_attacks_are_judged_by_these_limits_of_memory() -> None:
    limits = {name.replace("redis", "valkey"): bytes_of(it["mem_limit"]) for name, it in SERVICES.items()}
    assert {name: limits[name] for name in MEMORY_BYTES_MAX} == MEMORY_BYTES_MAX
