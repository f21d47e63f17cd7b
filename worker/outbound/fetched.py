"""What was fetched of late: a worker fetches a job's URL once, if it comes twice or its chunk is tried again.

The processes of a worker share it as files of one folder. The process that fetches a URL holds a lock, which the system
releases if the process dies (docs/decisions/0059-one-fetch-of-a-url.md).
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from hashlib import blake2b
from pathlib import Path

from jobs.item_codes import ItemCode
from jobs.service_folder import try_lock
from worker.outbound.hosts import HostBusy

log = logging.getLogger(__name__)

Fetched = bytes | ItemCode
FETCHED_BYTES_MAX = 128 << 20  # of images that a worker keeps, beside one more for each of its processes
FETCHED_URLS_MAX = 10_000
_URL_BYTES = 200  # that a file takes beyond its bytes
_POLL_SECONDS = 0.05  # between two looks at a URL that another process fetches
_IMAGE, _CODE = b"i", b"c"  # the first byte of a file


class RecentlyFetched:
    def __init__(
        self, folder: Path, *, processes: int = 1, wait_seconds: float = 60, bytes_max: int = FETCHED_BYTES_MAX
    ) -> None:
        """`processes` share the folder; `wait_seconds` is longer than a fetch takes."""
        self._folder = folder
        self._wait_seconds = wait_seconds
        # A sweep leaves half, and each process writes its share of the other half before it sweeps again.
        self._bytes_left, self._urls_left = bytes_max // 2, FETCHED_URLS_MAX // 2
        self._bytes_share, self._urls_share = self._bytes_left // processes, self._urls_left // processes
        self._bytes = self._urls = 0
        """Written by this process since its last sweep."""
        self._running = dict[Path, asyncio.Future[Fetched]]()
        """What this process fetches or waits for: equal URLs of a chunk need no file."""

    def find(self, job_id: bytes, url: str) -> Fetched | None:
        """The image of the job's URL, or its error code; None if it was not fetched of late."""
        return _read(self._path(job_id, url))

    async def get(self, job_id: bytes, url: str, fetch: Callable[[str], Awaitable[Fetched]]) -> Fetched:
        """The same, from `fetch` unless this or another process has called it for the URL, or does so now.

        Raises:
            HostBusy: another call of `fetch` has brought nothing.
            Exception: what `fetch` raises.
        """
        path = self._path(job_id, url)
        running = self._running.get(path)
        if running is None:
            running = self._running[path] = asyncio.ensure_future(self._get(path, url, fetch))
            running.add_done_callback(partial(self._done, path))
        return await asyncio.shield(running)

    def _done(self, path: Path, done: asyncio.Future[Fetched]) -> None:
        del self._running[path]
        if not done.cancelled():
            done.exception()  # all who waited may be gone

    async def _get(self, path: Path, url: str, fetch: Callable[[str], Awaitable[Fetched]]) -> Fetched:
        try:
            found = await self._find_or_lock(path)
        except OSError as error:  # a full disk must not keep an image from being fetched
            log.warning("what is fetched cannot be kept: %s", error)
            return await fetch(url)
        if not isinstance(found, int):
            return found
        kept = False
        try:
            fetched = await fetch(url)
            kept = self._keep(path, found, fetched)
            return fetched
        finally:
            _unlock(path, found, delete=not kept)

    async def _find_or_lock(self, path: Path) -> Fetched | int:
        """What the file has, or the open file that holds its lock.

        Raises HostBusy.
        """
        ends, waited = time.monotonic() + self._wait_seconds, False
        while (found := _read(path)) is None:
            lock = try_lock(_lock_of(path))
            if lock is None:
                if time.monotonic() >= ends:
                    raise HostBusy
                waited = True
                await asyncio.sleep(_POLL_SECONDS)
            elif not _is_at(lock, _lock_of(path)):  # its last holder has renamed or deleted it
                os.close(lock)
            elif (found := _read(path)) is None and not waited:
                return lock
            else:
                _unlock(path, lock, delete=True)
                if found is None:  # waited for as long as an image may take: fetched now, it would take twice that
                    raise HostBusy
        return found

    def _keep(self, path: Path, lock: int, fetched: Fetched) -> bool:
        """Write the locked file and give it its name, for all processes."""
        data = _CODE + fetched.encode() if isinstance(fetched, ItemCode) else _IMAGE + fetched
        try:
            os.ftruncate(lock, 0)  # a process that died may have written a part
            written = os.pwrite(lock, data, 0)
            if written < len(data):
                raise OSError("the disk is full")
            _use(_lock_of(path))
            _lock_of(path).rename(path)
        except OSError as error:
            log.warning("what is fetched cannot be kept: %s", error)
            self._sweep()
            return False
        self._bytes += _URL_BYTES + len(data)
        self._urls += 1
        if self._bytes > self._bytes_share or self._urls > self._urls_share:
            self._bytes = self._urls = 0
            self._sweep()
        return True

    def _sweep(self) -> None:
        """Delete what was not used for the longest time, until a half of what may be kept is left."""
        files = list[tuple[int, int, Path]]()
        for path in self._folder.iterdir():
            if not path.suffix:
                with suppress(FileNotFoundError):  # another process sweeps, too
                    found = path.stat()
                    files.append((found.st_mtime_ns, _URL_BYTES + found.st_size, path))
        urls, size = len(files), sum(size for _, size, _ in files)
        for _, file_size, path in sorted(files):
            if urls <= self._urls_left and size <= self._bytes_left:
                break
            path.unlink(missing_ok=True)
            urls, size = urls - 1, size - file_size

    def _path(self, job_id: bytes, url: str) -> Path:
        return self._folder / blake2b(job_id + url.encode(), digest_size=16).hexdigest()


def _read(path: Path) -> Fetched | None:
    try:
        data = path.read_bytes()
        _use(path)
    except FileNotFoundError:
        return None
    return data[1:] if data[:1] == _IMAGE else ItemCode(data[1:].decode())


def _use(path: Path) -> None:
    now = time.time_ns()  # finer than the file system's own clock
    os.utime(path, ns=(now, now))


def _lock_of(path: Path) -> Path:
    return path.with_suffix(".lock")


def _is_at(file: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _unlock(path: Path, lock: int, *, delete: bool) -> None:
    """`delete` unless the locked file has got its name: then another process may have made a lock anew."""
    if delete:
        _lock_of(path).unlink(missing_ok=True)
    os.close(lock)
