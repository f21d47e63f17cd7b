"""What the images of Redis and of the edge refuse before they start their server."""

import subprocess
from pathlib import Path

import pytest

from tests.support.processes import ROOT

SHIPPED = "inside-compose-only"


def refusal(script: str, **environment: str) -> str:
    """The one line of a script that does not start its server."""
    command = ["sh", ROOT / "deploy" / script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=20, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("environment", "exposed"),
    [
        ({"BIND": "0.0.0.0"}, "0.0.0.0"),
        ({"BIND": "[::]"}, "[::]"),
        ({"BIND": "192.0.2.1", "DOMAIN": "a.example"}, "192.0.2.1"),
        ({"BIND": "127.0.0.1", "DOMAIN": "a.example"}, "a.example"),
        ({"DOMAIN": "localhost"}, "localhost"),
    ],
)
def test_redis_does_not_start_with_the_shipped_password_if_others_can_reach_the_api(
    environment: dict[str, str], exposed: str
) -> None:
    for name, other in (("REDIS_PASSWORD", "REDIS_WORKER_PASSWORD"), ("REDIS_WORKER_PASSWORD", "REDIS_PASSWORD")):
        line = refusal("redis/start", **{name: SHIPPED, other: "another"}, **environment)
        assert line.startswith(f"darkroom redis: others can reach the API at {exposed}: set {name} in .env")
        assert SHIPPED not in line


def test_redis_is_not_opened_to_other_hosts_without_a_certificate(tmp_path: Path) -> None:
    environment = {"REDIS_PASSWORD": "a", "REDIS_WORKER_PASSWORD": "b", "TLS_FOLDER": str(tmp_path)}
    for file in ("redis.crt", "redis.key"):
        line = refusal("redis/start", REDIS_TLS_BIND="192.0.2.1", **environment)
        assert line.startswith(f"darkroom redis: others can reach Redis at 192.0.2.1, which needs {file} in REDIS_TLS_")
        (tmp_path / file).touch()


@pytest.mark.parametrize("name", ["REDIS_PASSWORD", "REDIS_WORKER_PASSWORD"])
def test_redis_is_not_opened_to_other_hosts_with_the_shipped_password(tmp_path: Path, name: str) -> None:
    for file in ("redis.crt", "redis.key"):
        (tmp_path / file).touch()
    passwords = {"REDIS_PASSWORD": "a", "REDIS_WORKER_PASSWORD": "b"} | {name: SHIPPED}
    line = refusal("redis/start", REDIS_TLS_BIND="192.0.2.1", TLS_FOLDER=str(tmp_path), **passwords)
    assert line.startswith(f"darkroom redis: others can reach Redis at 192.0.2.1: set {name} in .env")


@pytest.mark.parametrize("domain", ["", "https://a.example", "a.example b.example", "a.example:443", "a{b}"])
def test_the_edge_does_not_start_without_a_name_or_an_address(domain: str) -> None:
    line = refusal("edge/start", DOMAIN=domain)
    assert line.startswith(f"darkroom edge: DOMAIN is '{domain}': it must be the name of this server")
