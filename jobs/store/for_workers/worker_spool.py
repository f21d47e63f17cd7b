"""The workers' side of the spool: read uploads, keep failed images, delete what is done."""

import logging
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from jobs.records import ChunkRef
from jobs.settings import StoreSettings
from jobs.spool.names import SPOOLED_BYTES_MIN, Pointer, new_failed_name, new_upload_name
from jobs.spool.open import open_spool
from jobs.spool.spool import SpoolAway, SpoolFull

log = logging.getLogger(__name__)

T = TypeVar("T")

_THREADS = 8  # uploads of one claim that are read at the same time
_READ_SECONDS_MAX = 15  # of all uploads of a claim: less than a watchdog takes for a worker that is stuck
_CALL_SECONDS_MAX = 10  # of other calls: a network may hang


class WorkerSpool:
    """Without a spool, as with `UPLOADS_URL=redis:`, everything stays in Redis."""

    def __init__(self, settings: StoreSettings) -> None:
        self._spool = open_spool(settings)
        self._threads = ThreadPoolExecutor(_THREADS, "spool")

    def uploads(self, stored: Sequence[bytes | None]) -> list[tuple[bytes | None, str]]:
        """The packed images of what Redis has for each chunk, None if they are lost; and the name of its file, if any.

        Raises:
            SpoolAway
        """
        pointers = [None if data is None else Pointer.unpack(data) for data in stored]
        reads = {pointer: self._start_read(pointer) for pointer in pointers if pointer is not None}
        try:
            self._wait(list(reads.values()))
            return [
                (data, "") if pointer is None else (reads[pointer].result(), pointer.name)
                for data, pointer in zip(stored, pointers, strict=True)
            ]
        finally:
            for read in reads.values():
                read.cancel()

    def keep(self, chunk_ref: ChunkRef, retained: bytes) -> bytes:
        """What Redis is to have of failed images: themselves if they are small, else a pointer; b"" without space."""
        if not self.takes(len(retained)):
            return retained
        try:
            return self._write(new_failed_name(chunk_ref.job_id, chunk_ref.chunk), retained).pack()
        except (SpoolFull, OSError) as error:
            log.warning("failed images are not kept for a retry: %s", error)
            return b""

    def takes(self, upload_bytes: int) -> bool:
        """Whether an upload of so many bytes goes here."""
        return self._spool is not None and upload_bytes >= SPOOLED_BYTES_MIN

    def write(self, chunk_ref: ChunkRef, images: bytes) -> Pointer:
        """Write fetched images so that they are there after a power cut.

        Raises:
            SpoolFull
            OSError: the spool cannot be written.
        """
        return self._write(new_upload_name(chunk_ref.job_id), images)

    def delete(self, names: Sequence[str]) -> None:
        """If that fails, the sweep of the spool does it later."""
        try:
            if self._spool is not None:
                self._call(self._spool.delete, names)
        except OSError as error:
            log.warning("cannot delete uploads that are done: %s", error)

    def _write(self, name: str, data: bytes) -> Pointer:
        assert self._spool is not None
        pointer = self._call(self._spool.write, name, data)
        self._call(self._spool.commit)
        return pointer

    def _call(self, function: Callable[..., T], *args: object) -> T:
        """Raises TimeoutError, which is an OSError."""
        return self._threads.submit(function, *args).result(_CALL_SECONDS_MAX)

    def _start_read(self, pointer: Pointer) -> "Future[bytes | None]":
        if self._spool is None:
            raise SpoolAway("there are uploads outside Redis, but UPLOADS_URL names no place here")
        return self._threads.submit(self._spool.read, pointer)

    @staticmethod
    def _wait(reads: "list[Future[bytes | None]]") -> None:
        found = wait(reads, _READ_SECONDS_MAX, FIRST_EXCEPTION)
        for read in found.done:
            read.result()
        if found.not_done:
            raise SpoolAway(f"uploads could not be read in {_READ_SECONDS_MAX} s")
