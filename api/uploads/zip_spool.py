"""Where zips lie until they are read: in memory, and on the disk if they are large. Bounds what they take there."""

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from tempfile import SpooledTemporaryFile, gettempdir
from typing import ParamSpec, TypeVar

from jobs.errors import QueueFull
from jobs.owner_shares import OwnerShares

P = ParamSpec("P")
T = TypeVar("T")


class ZipSpools:
    """Those of one process. They share a number of bytes, of which each owner has a share."""

    def __init__(self, *, bytes_max: int, free_bytes_min: int) -> None:
        """`free_bytes_min`: of the disk, which others write to as well."""
        self._shares = OwnerShares(bytes_max)
        self._free_bytes_min = free_bytes_min

    @property
    def total_bytes(self) -> int:
        return self._shares.total

    def open(self, owner: str, *, memory_bytes_max: int) -> "ZipSpool":
        """A larger zip goes to the disk."""
        return ZipSpool(self._shares, owner, memory_bytes_max, self._free_bytes_min)


class ZipSpool:
    """One zip. Its bytes count until `close`."""

    def __init__(self, shares: OwnerShares, owner: str, memory_bytes_max: int, free_bytes_min: int) -> None:
        self.file = SpooledTemporaryFile(max_size=memory_bytes_max)  # noqa: SIM115  # closed in a thread
        self.size = 0
        self._shares = shares
        self._owner = owner
        self._memory_bytes_max = memory_bytes_max
        self._free_bytes_min = free_bytes_min

    async def write(self, data: bytes | bytearray) -> None:
        """Raises QueueFull if the spools, the owner's share of them, or the disk has no space for it."""
        if not self._shares.has_room(self._owner, len(data)):
            raise QueueFull(
                "Zips that are being uploaded take up the space for them, or yours take up an owner's share of it. "
                "Send a tar, which is not spooled."
            )
        self._shares.add(self._owner, len(data))
        self.size += len(data)
        try:
            await in_thread(self._write, data)
        except OSError as error:
            raise QueueFull("There is no disk space to spool a zip now. Send a tar, which is not spooled.") from error

    async def close(self) -> None:
        try:
            with suppress(OSError):  # it tries once more to write its buffer, and the disk may be full
                await in_thread(self.file.close)  # freeing gigabytes on the disk takes a while
        finally:
            self._shares.remove(self._owner, self.size)
            self.size = 0

    def _write(self, data: bytes | bytearray) -> None:
        if self.size > self._memory_bytes_max:
            space = os.statvfs(gettempdir())
            if space.f_bavail * space.f_frsize < self._free_bytes_min + len(data):
                raise OSError
        self.file.write(data)


async def in_thread(function: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
    """Like asyncio.to_thread, but even a cancellation waits for the call to end: nothing else may use the spool."""
    work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(work)
    finally:
        if not work.done():
            await asyncio.wait([work])
