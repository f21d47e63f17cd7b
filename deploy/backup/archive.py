"""The file of a backup: a tar of Redis' RDB file, the files of large uploads, and last a summary with their digest."""

import hashlib
import json
import os
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import IO

from jobs.spool.folder import OWNER_FILE
from jobs.spool.names import SpooledFile

FORMAT = 1
"""One higher if an older `restore` could not read the file."""
RDB, UPLOADS, SUMMARY = "store.rdb", "uploads/", "backup.json"
_SUMMARY_BYTES_MAX = 10_000
_READ_BYTES = 1 << 20


class BackupError(Exception):
    """One line says what is wrong, and what to do."""


@dataclass(frozen=True)
class Summary:
    format: int
    made_at: str
    rdb_bytes: int
    uploads: int
    uploads_bytes: int
    sha256: str
    """Of names and contents, in order."""

    def __str__(self) -> str:
        return (
            f"of {self.made_at}: {self.rdb_bytes:,} bytes of Redis, {self.uploads:,} large uploads of "
            f"{self.uploads_bytes:,} bytes"
        )


class _Hashed:
    """A file that is read once, and adds to a digest what is read of it."""

    def __init__(self, file: IO[bytes], digest: "hashlib._Hash") -> None:
        self._file = file
        self._digest = digest

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(size)
        self._digest.update(data)
        return data


def write_backup(target: Path, rdb: Path, uploads: IO[bytes]) -> Summary:
    """Write `target` whole, or leave nothing. `uploads`: the tar of `jobs.spool.held_copy`.

    Raises:
        BackupError
        OSError
    """
    part = target.with_name(f"{target.name}.part")
    try:
        # It holds all owners' images, and the key that signs the ids of jobs.
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            summary = _write(file, rdb, uploads)
            file.flush()
            os.fsync(file.fileno())
        os.link(part, target)  # unlike a rename, it replaces nothing
    except FileExistsError as error:
        raise BackupError(f"{error.filename2 or error.filename} exists: name another file, or remove it") from None
    except tarfile.TarError as error:
        raise BackupError(f"the uploads could not be read to their end: {error}") from None
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.unlink()
    return summary


def _write(file: IO[bytes], rdb: Path, uploads: IO[bytes]) -> Summary:
    digest, count, total = hashlib.sha256(), 0, 0
    with tarfile.open(fileobj=file, mode="w|") as tar:

        def add(name: str, size: int, content: IO[bytes]) -> None:
            member = tarfile.TarInfo(name)
            member.size, member.mtime, member.mode = size, int(time.time()), 0o640
            digest.update(f"{name} {size}\n".encode())
            tar.addfile(member, _Hashed(content, digest))

        with rdb.open("rb") as content:
            add(RDB, rdb.stat().st_size, content)
        with tarfile.open(fileobj=uploads, mode="r|") as copied:
            for member in copied:
                upload = copied.extractfile(member)
                assert upload is not None
                add(UPLOADS + member.name, member.size, upload)
                if member.name != OWNER_FILE:
                    count, total = count + 1, total + member.size
        made_at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        summary = Summary(FORMAT, made_at, rdb.stat().st_size, count, total, digest.hexdigest())
        text = json.dumps(asdict(summary)).encode()
        member = tarfile.TarInfo(SUMMARY)
        member.size, member.mtime = len(text), int(time.time())
        tar.addfile(member, BytesIO(text))
    return summary


def contents(path: Path) -> Iterator[tuple[str, int, IO[bytes]]]:
    """Name, size and content of each file in it, each to be read before the next. Raises tarfile.TarError, OSError."""
    with path.open("rb") as file, tarfile.open(fileobj=file, mode="r|") as tar:
        for member in tar:
            content = tar.extractfile(member)
            if content is None or not _is_ours(member.name):
                raise BackupError(f"{path} is no backup of Darkroom's: it contains {member.name!r}")
            with closing(content):
                yield member.name, member.size, content


def check_backup(path: Path) -> Summary:
    """Read all of it. Raises BackupError if it is not whole, or of a later format."""
    digest, found = hashlib.sha256(), None
    try:
        for name, size, content in contents(path):
            if name == SUMMARY:
                found = json.loads(content.read(_SUMMARY_BYTES_MAX))
                continue
            digest.update(f"{name} {size}\n".encode())
            hashed = _Hashed(content, digest)
            while hashed.read(_READ_BYTES):
                pass
    except (tarfile.TarError, EOFError, ValueError) as error:
        raise BackupError(f"{path} is truncated, or no backup: {error}") from None
    except OSError as error:
        raise BackupError(f"{path}: {error.strerror or error}") from None
    if not isinstance(found, dict):
        raise BackupError(f"{path} is truncated: its end is missing")
    if found.get("format", 0) > FORMAT:
        raise BackupError(f"{path} is of a later release of Darkroom: restore it with that release")
    if found["sha256"] != digest.hexdigest():
        raise BackupError(f"{path} is damaged: its digest is another one")
    return Summary(**found)


def _is_ours(name: str) -> bool:
    upload = name.removeprefix(UPLOADS)
    return name in (RDB, SUMMARY) or (
        upload != name and (upload == OWNER_FILE or SpooledFile.named(upload) is not None)
    )
