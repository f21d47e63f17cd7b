"""Reads zip archives: spools them first, because the directory is at the end, then reads the members in a thread."""

import asyncio
import stat
import struct
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import suppress
from tempfile import SpooledTemporaryFile
from typing import IO, ParamSpec, TypeVar

from api.uploads.archive_limits import ArchiveLimits, ArchiveMembers, damaged
from api.uploads.source import ArchiveStats, UploadedImage
from api.uploads.zip_directory import read_directory
from jobs.errors import QueueFull, UploadTooLarge
from jobs.item_codes import ItemCode

_BATCH_MEMBERS = 64  # of one call in the thread
_BATCH_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20  # written to the spool at a time
_ENCRYPTED = 0x1
_READ_BYTES = 64 << 10
_LOCAL_HEADER = struct.Struct("<4s22x2H")
_LOCAL_MAGIC = b"PK\x03\x04"

P = ParamSpec("P")
T = TypeVar("T")


async def read_zip(
    pieces: AsyncIterator[bytes], limits: ArchiveLimits, stats: ArchiveStats
) -> AsyncGenerator[UploadedImage]:
    """The files of an archive, in the order of its directory.

    Raises:
        InvalidRequest: the body is not a zip archive, or it is damaged.
        UploadTooLarge: the archive has too many bytes or members.
        QueueFull: the disk has no space for it.
    """
    spool = SpooledTemporaryFile(max_size=limits.spool_bytes_max)  # noqa: SIM115  # closed in a thread
    try:
        await _spool(pieces, spool, limits.zip_bytes_max)
        batches = _batches(spool, limits, ArchiveMembers(limits, stats))
        while (batch := await _in_thread(next, batches, None)) is not None:
            for image in batch:
                yield image
    finally:
        with suppress(OSError):  # close() tries once more to write its buffer, and the disk may be full
            await _in_thread(spool.close)  # freeing gigabytes on the disk takes a while


async def _spool(pieces: AsyncIterator[bytes], spool: IO[bytes], bytes_max: int) -> None:
    size, buffer = 0, bytearray()
    async for piece in pieces:
        size += len(piece)
        if size > bytes_max:
            raise UploadTooLarge(f"A zip may have at most {bytes_max} bytes. A tar may be larger: it is not spooled.")
        buffer += piece
        if len(buffer) >= _WRITE_BYTES:
            await _write(spool, buffer)
            buffer = bytearray()
    await _write(spool, buffer)


async def _write(spool: IO[bytes], data: bytearray) -> None:
    try:
        await _in_thread(spool.write, data)
    except OSError as error:
        raise QueueFull(
            "There is no disk space to spool a zip now. Try again later, or send a tar, which is not spooled."
        ) from error


async def _in_thread(function: Callable[P, T], *arguments: P.args, **_: P.kwargs) -> T:
    """Like asyncio.to_thread, but even a cancellation waits for the call to end: nothing else may use the spool."""
    work = asyncio.get_running_loop().run_in_executor(None, function, *arguments)
    try:
        return await asyncio.shield(work)
    finally:
        if not work.done():
            await asyncio.wait([work])


def _batches(spool: IO[bytes], limits: ArchiveLimits, members: ArchiveMembers) -> Iterator[list[UploadedImage]]:
    """Images in batches of a bounded amount of work. A batch may be empty."""
    batch, count, inflated_before = list[UploadedImage](), 0, 0
    for image in _read(spool, limits, members):
        count += 1
        if image is not None:
            batch.append(image)
        if count == _BATCH_MEMBERS or members.inflated - inflated_before >= _BATCH_BYTES:
            yield batch
            batch, count, inflated_before = [], 0, members.inflated
    yield batch


def _read(spool: IO[bytes], limits: ArchiveLimits, members: ArchiveMembers) -> Iterator[UploadedImage | None]:
    """Member by member; None for a member that is not an item."""
    try:
        for info in read_directory(spool):
            path = info.filename
            if path.endswith(("/", "\\")) or members.skips(path):
                yield None
                continue
            refusal = _kind_refusal(info) or members.refusal(path, info.file_size)
            yield members.to_image(path, refusal or _unpack(spool, info, limits, members))
    except zipfile.BadZipFile:
        raise damaged("is not a zip, or it is damaged") from None


def _kind_refusal(info: zipfile.ZipInfo) -> ItemCode | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return ItemCode.LINK_ENTRY
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return ItemCode.SPECIAL_ENTRY
    return ItemCode.ENCRYPTED_ENTRY if info.flag_bits & _ENCRYPTED else None


def _unpack(
    spool: IO[bytes], info: zipfile.ZipInfo, limits: ArchiveLimits, members: ArchiveMembers
) -> bytes | ItemCode:
    """The member's bytes, whatever size its header claims."""
    if info.compress_type not in (
        zipfile.ZIP_STORED,
        zipfile.ZIP_DEFLATED,
    ):  # the other decompressors do not bound a read
        return ItemCode.UNSUPPORTED_COMPRESSION
    pieces, size = list[bytes](), 0
    try:
        _seek(spool, info)
        with zipfile.ZipExtFile(spool, "r", info) as file:
            while piece := file.read(_READ_BYTES):
                size += len(piece)
                members.add_inflated(len(piece))
                if limits.is_bomb(size, info.compress_size):
                    return ItemCode.COMPRESSION_BOMB
                if size > limits.item_bytes_max:
                    return ItemCode.ITEM_TOO_LARGE
                pieces.append(piece)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, OverflowError, ValueError):
        return ItemCode.CORRUPT_ENTRY
    return b"".join(pieces) if size == info.file_size else ItemCode.CORRUPT_ENTRY


def _seek(spool: IO[bytes], info: zipfile.ZipInfo) -> None:
    """Move to the member's first byte, behind its local header."""
    spool.seek(info.header_offset)
    header = spool.read(_LOCAL_HEADER.size)
    if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MAGIC):
        raise zipfile.BadZipFile
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    spool.seek(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)
