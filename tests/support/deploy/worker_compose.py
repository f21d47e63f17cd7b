"""docker-compose.worker.yml as a project of its own, which reaches the first one by its published ports alone."""

import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support.deploy.compose import PASSWORD, Compose, docker
from tests.support.processes import ROOT, free_port

FILES = ("docker-compose.yml", "docker-compose.worker.yml")
HOSTS = ("-f", "docker-compose.yml", "-f", "docker-compose.hosts.yml")


def own_address() -> str:
    """An address of this machine by which containers of any network reach it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # sends nothing: it looks for the route
        return str(probe.getsockname()[0])


def make_certificate(folder: Path, address: str) -> None:
    """As docs/DEPLOYMENT.md says."""
    page = (ROOT / "docs/DEPLOYMENT.md").read_text()
    (command,) = re.findall(r"^openssl req (?:.*\\\n)*.*\n", page, re.MULTILINE)
    command = command.replace("10.0.0.5", address).replace("redis-tls/", f"{folder}/")
    subprocess.run(["sh", "-ec", command], check=True, capture_output=True)
    os.chown(folder / "redis.key", 999, 999)
    folder.chmod(0o755)  # as a folder of mkdir's, for another user


@contextmanager
def opened_redis(compose: Compose, folder: Path, address: str) -> Iterator[int]:
    """The port of an address of this host on which the Redis of a stack takes TLS; afterwards it is closed again."""
    port = free_port()
    environment = {"REDIS_TLS_BIND": address, "REDIS_TLS_PORT": str(port), "REDIS_TLS_FOLDER": str(folder)}
    try:
        up = compose("up", "--detach", "--wait", "redis", files=HOSTS, check=False, **environment)
        assert up.returncode == 0, up.stderr + compose("logs", "--tail", "20", "redis").stdout
        yield port
    finally:
        compose("up", "--detach", "--wait", "redis")


@contextmanager
def worker_elsewhere(folder: Path, url: str, *services: str) -> Iterator[None]:
    """Services with the two files and a .env of their own."""
    for name in FILES:
        shutil.copy2(ROOT / name, folder)
    settings = {
        "REDIS_URL": url,
        "REDIS_TLS_FOLDER": str(folder),
        "REDIS_WORKER_PASSWORD": PASSWORD[::-1],
        "UPLOADS_URL": "redis:",
        "WORKER_CHILDREN": "1",
    }
    project = ["compose", "--project-name", f"darkroom-elsewhere-{os.getpid()}", "--project-directory", str(folder)]
    project += ["-f", str(folder / "docker-compose.worker.yml")]
    try:
        docker(*project, "up", "--detach", "--no-build", *services, **settings)
        yield
    finally:
        docker(*project, "down", "--volumes", "--timeout", "20", check=False, **settings)
