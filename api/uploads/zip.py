"""Zip archives: spooled, for their directory is at the end, then read entry by entry in a thread."""

import asyncio
import stat
import struct
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, ParamSpec, TypeVar

from api.uploads.archive_limits import ArchiveLimits, Entries, damaged
from api.uploads.source import ArchiveStats, UploadedImage
from api.uploads.zip_directory import read_directory
from jobs.errors import QueueFull, UploadTooLarge
from jobs.item_codes import ItemCode

_BATCH_ENTRIES = 64
_BATCH_BYTES = 1 << 20  # of one hop to the thread and back
_SPOOL_BYTES = 1 << 20  # written at a time
_ENCRYPTED = 0x1
_READ_BYTES = 64 << 10
_LOCAL_HEADER = struct.Struct("<4s22x2H")
_LOCAL_MAGIC = b"PK\x03\x04"

P = ParamSpec("P")
T = TypeVar("T")


async def read_zip(
    parts: AsyncIterator[bytes], limits: ArchiveLimits, tally: ArchiveStats
) -> AsyncGenerator[UploadedImage]:
    """The files of an archive, in its directory's order.

    Raises:
        InvalidRequest: it is no zip archive, or damaged.
        UploadTooLarge: it has too many bytes or entries.
        QueueFull: the disk has no room for it.
    """
    spool = SpooledTemporaryFile(max_size=limits.spool_bytes_max)  # noqa: SIM115  # closed in a thread
    try:
        await _spool(parts, spool, limits.zip_bytes_max)
        batches = _batches(spool, limits, Entries(limits, tally))
        while (batch := await _in_thread(next, batches, None)) is not None:
            for image in batch:
                yield image
    finally:
        with suppress(OSError):  # it writes what is left once more, and the disk may be full
            await _in_thread(spool.close)  # the disk takes a while to free gigabytes


async def _spool(parts: AsyncIterator[bytes], spool: IO[bytes], bytes_max: int) -> None:
    size, waiting = 0, bytearray()
    async for part in parts:
        size += len(part)
        if size > bytes_max:
            raise UploadTooLarge(f"A zip may have {bytes_max} bytes; a tar is read as it comes.")
        waiting += part
        if len(waiting) >= _SPOOL_BYTES:
            await _write(spool, waiting)
            waiting = bytearray()
    await _write(spool, waiting)


async def _write(spool: IO[bytes], data: bytearray) -> None:
    try:
        await _in_thread(spool.write, data)
    except OSError as error:
        raise QueueFull("There is no room to keep a zip now; a tar is read as it comes.") from error


async def _in_thread(function: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
    """As asyncio.to_thread, but the thread is done when this is, even canceled: nothing else may use the spool."""
    work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(work)
    finally:
        if not work.done():
            await asyncio.wait([work])


def _batches(spool: IO[bytes], limits: ArchiveLimits, entries: Entries) -> Iterator[list[UploadedImage]]:
    """Images by a bounded amount of work, some of which brings none."""
    batch, count, inflated_before = list[UploadedImage](), 0, 0
    for image in _read(spool, limits, entries):
        count += 1
        if image is not None:
            batch.append(image)
        if count == _BATCH_ENTRIES or entries.inflated - inflated_before >= _BATCH_BYTES:
            yield batch
            batch, count, inflated_before = [], 0, entries.inflated
    yield batch


def _read(spool: IO[bytes], limits: ArchiveLimits, entries: Entries) -> Iterator[UploadedImage | None]:
    """Entry by entry, None for what is no content."""
    try:
        for info in read_directory(spool):
            path = info.filename
            if path.endswith(("/", "\\")) or entries.skips(path):
                yield None
                continue
            code = _kind_problem(info) or entries.problem(path, info.file_size)
            yield entries.image(path, code or _unpack(spool, info, limits, entries))
    except zipfile.BadZipFile:
        raise damaged("is no zip, or it is damaged") from None


def _kind_problem(info: zipfile.ZipInfo) -> ItemCode | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return ItemCode.LINK_ENTRY
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return ItemCode.SPECIAL_ENTRY
    return ItemCode.ENCRYPTED_ENTRY if info.flag_bits & _ENCRYPTED else None


def _unpack(spool: IO[bytes], info: zipfile.ZipInfo, limits: ArchiveLimits, entries: Entries) -> bytes | ItemCode:
    """The entry's bytes, whatever size its header claims."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others' unpackers are not bounded a read
        return ItemCode.UNSUPPORTED_COMPRESSION
    pieces, size = list[bytes](), 0
    try:
        _seek(spool, info)
        with zipfile.ZipExtFile(spool, "r", info) as file:
            while piece := file.read(_READ_BYTES):
                size += len(piece)
                entries.inflate(len(piece))
                if limits.is_bomb(size, info.compress_size):
                    return ItemCode.COMPRESSION_BOMB
                if size > limits.item_bytes_max:
                    return ItemCode.ITEM_TOO_LARGE
                pieces.append(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, OverflowError, ValueError):
        return ItemCode.CORRUPT_ENTRY
    return b"".join(pieces) if size == info.file_size else ItemCode.CORRUPT_ENTRY


def _seek(spool: IO[bytes], info: zipfile.ZipInfo) -> None:
    """To the entry's first byte, behind its own header."""
    spool.seek(info.header_offset)
    header = spool.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MAGIC):
        raise zipfile.BadZipFile
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    spool.seek(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
