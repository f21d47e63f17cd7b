"""The stack under compose beyond its host: a worker on another one, and a backup after its volumes are lost."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.deploy.compose import BAG, Compose, docker, reason_to_skip
from tests.support.deploy.worker_compose import make_certificate, opened_redis, own_address, worker_elsewhere
from tests.support.stack import PNG
from tests.support.waiting import wait_until

_REASON = reason_to_skip()
pytestmark = pytest.mark.skipif(bool(_REASON), reason=f"no Docker engine to run compose with: {_REASON}")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a key to Redis' user")
def test_a_worker_on_another_host_joins_by_tls_alone(compose: Compose, tmp_path: Path) -> None:
    """Its project shares no network with the first one's: it reaches the published port on an address of this host."""
    address = own_address()
    make_certificate(tmp_path, address)
    url = f"rediss://{address}:PORT/0?ssl_ca_certs=/etc/darkroom/tls/redis.crt"
    with opened_redis(compose, tmp_path, address) as port:
        compose("stop", "worker")
        with worker_elsewhere(tmp_path, url.replace("PORT", str(port)), "worker"):
            result = wait_until(compose.first_result, seconds=120, what="a result of the other host's worker")
        assert result["class"] == "Bag"
        plain = docker(
            "run", "--rm", "redis:7-bookworm", "redis-cli", "-h", address, "-p", str(port), "ping", check=False
        )
        assert "PONG" not in plain.stdout
        compose("start", "worker")


def test_a_backup_is_restored_after_the_volumes_are_lost(compose: Compose, tmp_path: Path) -> None:
    """As docs/BACKUP.md says, for a job that waits with a large upload. The API's key is in the backup, too."""
    compose("up", "--detach", "--scale", "worker=1")
    compose("stop", "worker")
    with compose.client() as client:
        path = client.post("/v1/jobs", content=BAG + bytes(100_000), headers=PNG).headers["Location"]
    said = compose.python("-m", "deploy.backup", str(tmp_path / "backup.tar"), "--compose")
    assert "1 large uploads" in said.stdout, said.stderr
    running = compose.python("-m", "deploy.restore", str(tmp_path / "backup.tar"), "--compose")
    assert "api, outbound, redis run: `docker compose down` first" in running.stderr

    compose("down", "--volumes")
    assert compose.python("-m", "deploy.restore", str(tmp_path / "backup.tar"), "--compose").returncode == 0
    again = compose.python("-m", "deploy.restore", str(tmp_path / "backup.tar"), "--compose")
    assert "--replace" in again.stderr
    compose("up", "--detach")
    with compose.client() as client:
        job = wait_until(lambda: _ended_job(client, path), seconds=120, what="the job of the backup")
    assert job["result"]["class"] == "Bag"


def _ended_job(client: httpx.Client, path: str) -> dict[str, Any] | None:
    with suppress(httpx.TransportError):
        answer = client.get(f"{path}?wait=10")
        if answer.is_success and answer.json()["status"] != "queued":
            return dict(answer.json())
    return None
