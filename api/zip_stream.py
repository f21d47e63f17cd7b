"""Zip archives: spooled, for their directory is at the end, then read entry by entry in a thread."""

import asyncio
import stat
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from tempfile import SpooledTemporaryFile
from typing import IO

from api.archives import ArchiveLimits, Entries, damaged
from api.images import Tally, UploadedImage
from jobs.errors import DarkroomError, ItemCode, UploadTooLarge

_BATCH_ITEMS = 64
_BATCH_BYTES = 1 << 20  # of one hop to the thread and back
_SPOOL_BYTES = 1 << 20  # written at a time
_ENCRYPTED = 0x1
_READ_BYTES = 64 << 10


async def read_zip(parts: AsyncIterator[bytes], limits: ArchiveLimits, tally: Tally) -> AsyncGenerator[UploadedImage]:
    """The files of an archive, in its directory's order.

    Raises:
        InvalidRequest: it is no zip archive, or damaged.
        UploadTooLarge: it has too many bytes or entries.
    """
    with SpooledTemporaryFile(max_size=limits.spool_bytes_max) as spool:
        await _spool(parts, spool, limits.zip_bytes_max)
        images = _read(spool, limits, Entries(limits, tally))
        while batch := await asyncio.to_thread(_batch, images):
            for image in batch:
                yield image


async def _spool(parts: AsyncIterator[bytes], spool: IO[bytes], bytes_max: int) -> None:
    size, waiting = 0, bytearray()
    async for part in parts:
        size += len(part)
        if size > bytes_max:
            raise UploadTooLarge(f"A zip archive may have {bytes_max} bytes; a tar is read as it comes.")
        waiting += part
        if len(waiting) >= _SPOOL_BYTES:
            await asyncio.to_thread(spool.write, waiting)
            waiting = bytearray()
    await asyncio.to_thread(spool.write, waiting)


def _batch(images: Iterator[UploadedImage]) -> list[UploadedImage]:
    batch, size = list[UploadedImage](), 0
    for image in images:
        batch.append(image)
        size += len(image.data)
        if len(batch) == _BATCH_ITEMS or size >= _BATCH_BYTES:
            break
    return batch


def _read(spool: IO[bytes], limits: ArchiveLimits, entries: Entries) -> Iterator[UploadedImage]:
    try:
        with zipfile.ZipFile(spool) as archive:
            for info in archive.infolist():
                path = info.filename
                if info.is_dir() or entries.skips(path):
                    continue
                code = _kind_problem(info) or entries.problem(path, info.file_size)
                yield entries.image(path, code or _unpack(archive, info, limits, entries))
    except DarkroomError:
        raise
    except Exception:  # a damaged directory raises BadZipFile, struct.error, OSError, ValueError, NotImplementedError …
        raise damaged("is no zip, or it is damaged") from None


def _kind_problem(info: zipfile.ZipInfo) -> ItemCode | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return ItemCode.LINK_ENTRY
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return ItemCode.SPECIAL_ENTRY
    return ItemCode.ENCRYPTED_ENTRY if info.flag_bits & _ENCRYPTED else None


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, limits: ArchiveLimits, entries: Entries
) -> bytes | ItemCode:
    """The entry's bytes, whatever size its header claims."""
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others' unpackers are not bounded a read
        return ItemCode.UNSUPPORTED_COMPRESSION
    pieces, size = list[bytes](), 0
    try:
        with archive.open(info) as file:
            while piece := file.read(_READ_BYTES):
                size += len(piece)
                entries.inflate(len(piece))
                if limits.is_bomb(size, info.compress_size):
                    return ItemCode.COMPRESSION_BOMB
                if size > limits.item_bytes_max:
                    return ItemCode.ITEM_TOO_LARGE
                pieces.append(piece)
    except DarkroomError:
        raise
    except NotImplementedError:
        return ItemCode.UNSUPPORTED_COMPRESSION
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, ValueError):
        return ItemCode.CORRUPT_ENTRY
    return b"".join(pieces)
