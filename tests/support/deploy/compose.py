"""Compose on a real Docker engine, and an image that stands in for Caddy's."""

import json
import os
import re
import shutil
import ssl
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tests.support.deploy.edge import CADDY
from tests.support.pictures import samples
from tests.support.processes import ROOT, free_port
from tests.support.stack import PNG

BAG = samples()["0018-bag.png"]
PROFILES = ("--profile", "tls", "--profile", "monitoring")
PASSWORD = "p@ss/w#rd:1 \"x'y$z\\%41+="  # characters that a password generator may use


def docker(*arguments: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["docker", *arguments],
        cwd=ROOT,
        env={**os.environ, "DOCKER_BUILDKIT": "0", **environment},
        capture_output=True,
        text=True,
        timeout=900,
        check=check,
    )


def reason_to_skip() -> str:
    """Empty if an engine responds and compose v2 is installed."""
    try:
        for probe in (["info"], ["compose", "version"]):
            if (done := docker(*probe, check=False)).returncode:
                return f"`docker {' '.join(probe)}`: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
    except FileNotFoundError:
        return "the docker command is not installed"
    return ""


class Compose:
    def __init__(self, profiles: Sequence[str] = PROFILES, **environment: str) -> None:
        self._profiles = profiles
        self.port, self.edge_port, self.prometheus_port = free_port(), free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.seconds_to_first_result = 0.0
        self._project = f"darkroom-test-{os.getpid()}"
        self._environment = {
            "PORT": str(self.port),
            "REDIS_PASSWORD": PASSWORD,
            "REDIS_WORKER_PASSWORD": PASSWORD[::-1],
            "DOMAIN": "localhost",
            "EDGE_BIND": "127.0.0.1",
            "EDGE_HTTP_PORT": str(free_port()),
            "EDGE_HTTPS_PORT": str(self.edge_port),
            "PROMETHEUS_PORT": str(self.prometheus_port),
        } | environment
        self.key = ""

    def __call__(
        self, *arguments: str, check: bool = True, files: Sequence[str] = (), **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """`files`: options that name compose files, in place of docker-compose.yml alone."""
        command = ["compose", *files, "--project-name", self._project, *self._profiles, *arguments]
        return docker(*command, check=check, **self._environment | environment)

    def python(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of this repository that runs `docker compose` itself."""
        environment = {**os.environ, **self._environment, "COMPOSE_PROJECT_NAME": self._project}
        return subprocess.run(
            [sys.executable, *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def make_key(self) -> None:
        """As docs/DEPLOYMENT.md says."""
        command = ["run", "--rm", "--no-TTY", "--entrypoint", "darkroom-admin", "api", "keys", "create", "alice"]
        self.key = self(*command).stdout.strip()

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers=self.headers, timeout=40)

    def edge_client(self, folder: Path) -> httpx.Client:
        """A client that trusts the edge's own authority, read as docs/DEPLOYMENT.md says."""
        return httpx.Client(**self._of_edge(folder))

    def async_edge_client(self, folder: Path) -> httpx.AsyncClient:
        return httpx.AsyncClient(**self._of_edge(folder))

    def _of_edge(self, folder: Path) -> dict[str, Any]:
        self("cp", "edge:/var/lib/darkroom/caddy/pki/authorities/local/root.crt", str(folder))
        tls = ssl.create_default_context(cafile=str(folder / "root.crt"))
        return {
            "base_url": f"https://localhost:{self.edge_port}",
            "headers": self.headers,
            "timeout": 40,
            "verify": tls,
        }

    def scraped(self, service: str) -> int:
        """How many containers of a service Prometheus reads, each once, and which read the store."""
        query = {"query": f'darkroom_store_up{{service="{service}"}} == 1'}
        answer = httpx.get(f"http://127.0.0.1:{self.prometheus_port}/api/v1/query", params=query, timeout=10)
        return len(answer.json()["data"]["result"])

    def containers(self, service: str) -> list[dict[str, Any]]:
        """The output of `docker inspect` for each container of a service."""
        ids = self("ps", "--all", "--quiet", service).stdout.split()
        inspected: list[dict[str, Any]] = json.loads(docker("inspect", *ids).stdout)
        return inspected

    def redis_cli(self, user: str, command: str, *, password: str = "") -> str:
        """What Redis answers to a user; `password` is the name of another user's, in the container's environment."""
        password = password or {"api": "REDIS_PASSWORD", "worker": "REDIS_WORKER_PASSWORD"}[user]
        shell = f'REDISCLI_AUTH=${password} redis-cli --user {user} "$@" 2>&1'
        return self("exec", "--no-TTY", "redis", "sh", "-c", shell, "sh", *command.split(), check=False).stdout

    def first_result(self) -> dict[str, Any] | None:
        """The result for an image of a bag, or None while the stack is not ready."""
        try:
            with self.client() as client:
                answer = client.post("/v1/jobs", content=BAG, headers=PNG | {"Prefer": "wait=5"})
        except httpx.TransportError:
            return None
        result: dict[str, Any] | None = answer.json().get("result") if answer.status_code == 200 else None
        return result


STAND_IN = """
FROM python:3.11-slim-bookworm
COPY caddy /usr/bin/caddy
RUN python3 -c "import os; os.setxattr('/usr/bin/caddy', 'security.capability', bytes.fromhex('{capability}'))"
"""
MAY_BIND_LOW_PORTS = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep, as setcap writes it


@contextmanager
def caddy_image(folder: Path) -> Iterator[None]:
    """The image that the edge's Dockerfile begins with, as it is; or, if it cannot be pulled, a stand-in meanwhile."""
    (name,) = re.findall(r"^ARG CADDY_BASE=(\S+)", (ROOT / "deploy/edge/Dockerfile").read_text())
    if any(docker(*probe, name, check=False).returncode == 0 for probe in (["image", "inspect"], ["pull"])):
        yield
        return
    (folder / "Dockerfile").write_text(STAND_IN.format(capability=MAY_BIND_LOW_PORTS.hex()))
    shutil.copy2(CADDY, folder / "caddy")
    docker("build", "--quiet", "--tag", name, str(folder))
    try:
        yield
    finally:
        docker("rmi", name, check=False)
