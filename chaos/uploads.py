"""Where the large uploads of the stack under test wait: a folder on a small disk, or an S3 server (moto)."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from os import geteuid
from pathlib import Path
from typing import Protocol

from jobs.spool.folder import SUBFOLDER
from tests.support.processes import Process, answers, free_port
from tests.support.s3 import S3
from tests.support.waiting import wait_until

FOLDER_BYTES, FREE_BYTES = 256 << 20, 16 << 20
_BUCKET, _UPLOADS = "uploads", "chaos/uploads/"


class Uploads(Protocol):
    settings: dict[str, str]
    """Of the services."""
    mounted: bool
    """Whether they have a small disk of their own, which can be filled."""

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def names(self) -> list[str]:
        """Of the files or objects."""

    def delete(self, name: str) -> None: ...

    @contextmanager
    def away(self) -> Iterator[None]:
        """They cannot be reached during the block."""

    @contextmanager
    def full(self) -> Iterator[None]:
        """There is no space during the block."""


class FolderUploads:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.settings = {"UPLOADS_URL": f"file://{folder}", "UPLOADS_FREE_BYTES_MIN": str(FREE_BYTES)}
        folder.mkdir()
        self.mounted = mount(folder, FOLDER_BYTES)

    def start(self) -> None:
        pass

    def stop(self) -> None:
        if self.mounted:
            unmount(self._folder)

    def names(self) -> list[str]:
        return [path.name for path in (self._folder / SUBFOLDER).glob("*.*")]

    def delete(self, name: str) -> None:
        (self._folder / SUBFOLDER / name).unlink()

    @contextmanager
    def away(self) -> Iterator[None]:
        """As if the file system were not mounted."""
        uploads, away = self._folder / SUBFOLDER, self._folder / "away"
        uploads.rename(away)
        try:
            yield
        finally:
            away.rename(uploads)

    @contextmanager
    def full(self) -> Iterator[None]:
        with full(self._folder):
            yield


class S3Uploads:
    mounted = False

    def __init__(self, log: Path) -> None:
        port = free_port()
        self._s3 = S3(f"http://127.0.0.1:{port}")
        self.settings = self._s3.environment(f"s3://{_BUCKET}/chaos")
        self._server = Process([sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)], log)
        self._port = port

    def start(self) -> None:
        self._server.start()
        wait_until(lambda: answers(self._port, "/moto-api/"), what="moto's server")
        self._s3.bucket(_BUCKET)

    def stop(self) -> None:
        self._server.stop()

    def names(self) -> list[str]:
        return [key for key in self._s3.keys(_BUCKET) if key.startswith(_UPLOADS)]

    def delete(self, name: str) -> None:
        self._s3.delete(_BUCKET, _UPLOADS + name)

    @contextmanager
    def away(self) -> Iterator[None]:
        """S3 hangs: connections are not refused, and no request is answered."""
        self._server.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._server.signal(signal.SIGCONT)

    @contextmanager
    def full(self) -> Iterator[None]:
        raise NotImplementedError


@contextmanager
def full(folder: Path) -> Iterator[None]:
    """There is no space on the folder's file system during the block."""
    balloon = folder / "balloon"
    with balloon.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with suppress(OSError):
                while True:
                    file.write(bytes(size))
    try:
        yield
    finally:
        balloon.unlink()


def mount(folder: Path, size_bytes: int) -> bool:
    """Mount a small file system. Returns False if this process may not."""
    if geteuid() != 0 or shutil.which("mount") is None:
        return False
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_bytes}", "tmpfs", str(folder)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def unmount(folder: Path) -> None:
    subprocess.run(["umount", str(folder)], check=True)
