"""Temporary folders that the processes of one service share. Those of a killed service are removed by the next one."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OWNER = "owner.lock"  # locked as long as the service runs


@contextmanager
def service_folder(prefix: str) -> Iterator[Path]:
    """An empty folder for as long as the context. `prefix` names its kind; no kind's begins with another's."""
    for found in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        _remove_if_abandoned(found)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = try_lock(folder / _OWNER)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def try_lock(path: Path) -> int | None:
    """The open file that holds the lock; None if another one does. The system closes it with its process."""
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(file)
        return None
    return file


def _remove_if_abandoned(folder: Path) -> None:
    """Of a folder without a lock, nobody knows whether it is about to get one."""
    if folder.is_symlink() or folder.stat().st_uid != os.geteuid() or not (folder / _OWNER).exists():
        return
    lock = try_lock(folder / _OWNER)
    if lock is not None:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)
