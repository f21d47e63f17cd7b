"""A spool in a folder that the API and all workers see: one host, or a shared file system. Blocking."""

import errno
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from jobs.errors import SettingsError
from jobs.spool.hold import is_held
from jobs.spool.names import Pointer
from jobs.spool.spool import SpoolAway, SpoolFull, SpoolNotMarked, checked

log = logging.getLogger(__name__)

SUBFOLDER = "darkroom-uploads"
OWNER_FILE = "store"  # this file names the store whose uploads the folder holds
_FULL = (errno.ENOSPC, errno.EDQUOT)


class SpoolFolder:
    """Files in a subfolder of its own."""

    pass_seconds = 0.0

    def __init__(self, folder: Path, *, free_bytes_min: int) -> None:
        self._parent = folder
        self._folder = folder / SUBFOLDER
        self._free_bytes_min = free_bytes_min

    # -- at start

    def check(self, store: str | None, *, is_new: bool = True, may_mark: bool = True) -> None:
        """See `Spool`.

        Only a folder that `is_new` is created: the absence of another means that its file system is not mounted, and
        what was written in its place would be hidden later.

        Raises:
            SettingsError: it is missing, not writable, too small, or holds another store's uploads.
            SpoolNotMarked
        """
        if not self._parent.is_dir():
            raise SettingsError(f"UPLOADS_URL: there is no folder {self._parent}")
        if not is_new and not (self._folder / OWNER_FILE).exists():
            raise SettingsError(f"UPLOADS_URL: {self._parent} lacks the uploads that Redis counts: is it mounted?")
        if store is not None and not may_mark and not (self._folder / OWNER_FILE).exists():
            raise SpoolNotMarked(self._parent)
        try:
            self._folder.mkdir(exist_ok=True)
            probe = self._folder / f".probe-{os.urandom(8).hex()}"
            _write(probe, b"probe")
            probe.unlink()
            if store is not None:
                self._claim(store)
        except SpoolFull:
            log.warning("UPLOADS_URL: %s is full; large uploads are refused until there is space", self._parent)
        except OSError as error:
            raise SettingsError(f"UPLOADS_URL: cannot write into {self._parent}: {error.strerror}") from None
        space = os.statvfs(self._folder)
        total = space.f_blocks * space.f_frsize
        if total <= self._free_bytes_min:
            raise SettingsError(
                f"UPLOADS_URL: the file system of {self._parent} has {total} bytes in all, and "
                f"UPLOADS_FREE_BYTES_MIN keeps {self._free_bytes_min} free"
            )

    def _claim(self, store: str) -> None:
        """Write or compare the file that says whose uploads these are."""
        owner, mine = self._folder / OWNER_FILE, self._folder / f".{OWNER_FILE}-{os.urandom(8).hex()}"
        if not owner.exists():
            try:
                _write(mine, store.encode())
                with suppress(FileExistsError):  # another process was faster
                    os.link(mine, owner)
                self.commit()
            finally:
                mine.unlink(missing_ok=True)
        if owner.read_text() != store:
            raise SettingsError(
                f"UPLOADS_URL: {self._folder} holds the uploads of another Redis: choose another folder, or remove it"
            )

    # -- files

    def room_bytes(self) -> int:
        """How much may be written until only `UPLOADS_FREE_BYTES_MIN` are free; negative if less are free now."""
        space = os.statvfs(self._folder)
        return space.f_bavail * space.f_frsize - self._free_bytes_min

    def write(self, name: str, data: bytes) -> Pointer:
        _write(self._folder / name, data)
        return Pointer.to(name, data)

    def commit(self) -> None:
        """One fsync of the folder, after those of the files."""
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def read(self, pointer: Pointer) -> bytes | None:
        try:
            return checked(pointer, (self._folder / pointer.name).read_bytes())
        except FileNotFoundError:
            if not (self._folder / OWNER_FILE).exists():
                raise SpoolAway(errno.ENOENT, "the folder of uploads is away", str(self._folder)) from None
            return checked(pointer, None)
        except OSError as error:
            raise SpoolAway(*error.args) from error

    def delete(self, names: Sequence[str]) -> None:
        if is_held(self._folder):
            return  # a backup is being made; the sweep of the spool deletes them later
        for name in names:
            (self._folder / name).unlink(missing_ok=True)

    def names(self) -> Iterator[str]:
        with os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.name != OWNER_FILE and not entry.name.startswith("."):
                    yield entry.name


def _write(path: Path, data: bytes) -> None:
    """Leaves nothing behind if it fails. Raises SpoolFull, OSError."""
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o640)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(file, view) :]
        os.fdatasync(file)
    except BaseException as error:
        path.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in _FULL:
            raise SpoolFull from None
        raise
    finally:
        os.close(file)
