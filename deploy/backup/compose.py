"""The volumes of compose, through `docker compose`: COMPOSE_FILE, COMPOSE_PROJECT_NAME and .env count as for it."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.backup.archive import BackupError
from deploy.backup.places import SAVE_SECONDS_MAX, Place

_COMPOSE = ["docker", "compose"]
# Not to standard output: there redis-cli leaves the mark behind with which the server ends a stream, and a server that
# read it after the RDB file would not start.
_SAVE = """
file=/var/lib/darkroom/backup-$$.rdb
trap 'rm -f $file' EXIT
redis-admin --rdb $file >&2 && cat $file
"""
_WRITERS = frozenset({"redis", "api", "worker", "outbound"})


class ComposePlace(Place):
    def __init__(self) -> None:
        run = [*_COMPOSE, "run", "--rm", "--no-deps", "--no-TTY", "--entrypoint", "sh"]
        self.redis_shell, self.api_shell = [*run, "redis"], [*run, "api"]
        self.api_python = [*_COMPOSE, "exec", "--no-TTY", "api", "python3"]
        self.redis_folder, self.uploads_folder = "/var/lib/darkroom", "/var/lib/darkroom/uploads"

    def save(self, rdb: Path) -> None:
        command = [*_COMPOSE, "exec", "--no-TTY", "redis", "sh", "-c", _SAVE]
        with rdb.open("wb") as file:
            done = subprocess.run(
                command, stdout=file, stderr=subprocess.PIPE, text=True, check=False, timeout=SAVE_SECONDS_MAX
            )
        if done.returncode:
            raise BackupError(f"Redis wrote no file: {' '.join(done.stderr.split()) or done.returncode}")

    @contextmanager
    def stopped(self) -> Iterator[str]:
        command = [*_COMPOSE, "ps", "--services", "--status", "running"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BackupError(f"`docker compose ps` failed: {' '.join(done.stderr.split())}")
        if running := _WRITERS.intersection(done.stdout.split()):
            raise BackupError(f"{', '.join(sorted(running))} run: `docker compose down` first")
        yield "redis-check-rdb"
