"""The API's side of the spool, on asyncio: the spool's calls run in threads, and writes share a commit."""

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from jobs.errors import QueueFull, SettingsError, StoreUnavailable
from jobs.logs.outage_log import OutageLog
from jobs.settings import StoreSettings
from jobs.spool.names import SPOOLED_BYTES_MIN, Pointer, new_upload_name
from jobs.spool.open import open_spool
from jobs.spool.spool import Spool, SpoolFull

T = TypeVar("T")

THREADS = 8  # writes that wait for the disk, or for S3, at the same time
CALL_SECONDS_MAX = 20  # of one call of the spool: a network may hang
LOOK_SECONDS_MAX = 5  # of a `refresh`, so that a spool that hangs is soon refused
_NO_ROOM = "There is no space for large uploads at the moment."


class UploadSpool:
    """Refuses uploads until a first `refresh` has shown that the spool belongs to this store.

    Without a spool, as with `UPLOADS_URL=redis:`, it takes none.
    """

    def __init__(self, settings: StoreSettings) -> None:
        self.spool = open_spool(settings)
        """None if all uploads go to Redis."""
        self._bytes_max = settings.uploads_spool_bytes_max
        self._threads = ThreadPoolExecutor(THREADS, "spool")
        self._look_thread = ThreadPoolExecutor(1, "spool look")  # no look waits behind writes, and no two hang
        self._commit = SharedCall(lambda: self.run(self._opened.commit))
        self._store = ""
        self._was_open = False
        self._free_bytes = 0
        """Beyond what is to stay free."""
        self._budget_left_bytes = 0
        self._outage = OutageLog("cannot use UPLOADS_URL")

    def close(self) -> None:
        for threads in (self._threads, self._look_thread):
            threads.shutdown(wait=False, cancel_futures=True)

    def takes(self, upload_bytes: int) -> bool:
        """Whether an upload of so many bytes goes here."""
        return self.spool is not None and upload_bytes >= SPOOLED_BYTES_MIN

    @property
    def is_open(self) -> bool:
        """Whether the last `refresh` found the spool in order."""
        return bool(self._store)

    async def refresh(self, store: str, spooled_bytes: int) -> None:
        """Look at the spool's owner and its free space. `spooled_bytes` is what the store, named `store`, counts in it.

        An error is logged, and no upload is accepted until a later call finds it over.
        """
        try:
            is_new = spooled_bytes == 0 and not self._was_open
            look = partial(self._look, store, is_new=is_new)
            async with asyncio.timeout(LOOK_SECONDS_MAX):
                self._free_bytes = await asyncio.get_running_loop().run_in_executor(self._look_thread, look)
        except (SettingsError, OSError) as error:
            self._outage.failed(error)
            self._store = ""
            return
        self._outage.recovered()
        self._store, self._was_open = store, True
        self._budget_left_bytes = self._bytes_max - spooled_bytes

    def _look(self, store: str, *, is_new: bool) -> int:
        if store != self._store:
            self._opened.check(store, is_new=is_new)
        return self._opened.room_bytes()

    async def write(self, job_id: bytes, data: bytes) -> Pointer:
        """Write an upload so that it is there after a power cut.

        Raises:
            QueueFull: there is no space.
            StoreUnavailable: the spool cannot be written.
        """
        if not self._store:
            raise StoreUnavailable
        over = len(data) - min(self._free_bytes, self._budget_left_bytes)  # the script checks the budget exactly
        if over > 0:
            raise QueueFull(_NO_ROOM, over_bytes=over)
        self._free_bytes -= len(data)  # until the next refresh
        name = new_upload_name(job_id)
        try:
            pointer = await self.run(self._opened.write, name, data)
            await self._commit()
        except SpoolFull:
            self._free_bytes = 0
            raise QueueFull(_NO_ROOM, over_bytes=len(data)) from None
        except OSError as error:
            self._outage.failed(error)
            raise StoreUnavailable from None
        return pointer

    async def discard(self, *names: str) -> None:
        """Delete uploads that no job needs. If that fails, the sweep of the spool tries again."""
        try:
            await self.run(self._opened.delete, names)
        except OSError as error:
            self._outage.failed(error)

    async def read(self, pointer: Pointer) -> bytes | None:
        """The bytes, or None if they are lost or damaged. Raises StoreUnavailable."""
        try:
            return await self.run(self._opened.read, pointer)
        except OSError as error:
            self._outage.failed(error)
            raise StoreUnavailable from None

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Call a blocking function of the spool in a thread. Raises TimeoutError, which is an OSError."""
        async with asyncio.timeout(CALL_SECONDS_MAX):
            return await asyncio.get_running_loop().run_in_executor(self._threads, function, *args)

    @property
    def _opened(self) -> Spool:
        assert self.spool is not None
        return self.spool


class SharedCall:
    """One call serves all callers that wait when it begins. A call that is running already is too early for them."""

    def __init__(self, call: Callable[[], Awaitable[None]]) -> None:
        self._call = call
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        await self._call()
