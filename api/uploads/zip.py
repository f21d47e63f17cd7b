"""Reads zip archives: spools them first, because the directory is at the end, then reads the members in a thread."""

import stat
import struct
import zipfile
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import IO

from api.uploads.archive_limits import ArchiveLimits, ArchiveMembers, damaged
from api.uploads.source import ArchiveStats, UploadedImage
from api.uploads.zip_directory import read_directory
from api.uploads.zip_extents import Extents
from api.uploads.zip_spool import ZipSpool, ZipSpools, in_thread
from jobs.errors import UploadTooLarge
from jobs.item_codes import ItemCode

_BATCH_MEMBERS = 64  # of one call in the thread
_BATCH_BYTES = 1 << 20
_WRITE_BYTES = 1 << 20  # written to the spool at a time
_BOMBS_MAX = 16  # members of an archive that fail as such; with more, the archive is refused
_ENCRYPTED = 0x1
_READ_BYTES = 64 << 10
_LOCAL_HEADER = struct.Struct("<4s22x2H")
_LOCAL_MAGIC = b"PK\x03\x04"


async def read_zip(
    pieces: AsyncIterator[bytes], limits: ArchiveLimits, stats: ArchiveStats, spools: ZipSpools, owner: str
) -> AsyncGenerator[UploadedImage]:
    """The files of an archive, in the order of its directory.

    Raises:
        InvalidRequest: the body is not a zip archive, or it is damaged.
        UploadTooLarge: the archive has too many bytes or members.
        QueueFull: the spools of zips, the owner's share of them, or the disk has no space for it.
    """
    spool = spools.open(owner, memory_bytes_max=limits.spool_bytes_max)
    try:
        await _spool(pieces, spool, limits.zip_bytes_max)
        batches = _batches(_Zip(spool.file, spool.size, limits, ArchiveMembers(limits, stats)))
        while (batch := await in_thread(next, batches, None)) is not None:
            for image in batch:
                yield image
    finally:
        await spool.close()


async def _spool(pieces: AsyncIterator[bytes], spool: ZipSpool, bytes_max: int) -> None:
    size, buffer = 0, bytearray()
    async for piece in pieces:
        size += len(piece)
        if size > bytes_max:
            raise UploadTooLarge(f"A zip may have at most {bytes_max} bytes. A tar may be larger: it is not spooled.")
        buffer += piece
        if len(buffer) >= _WRITE_BYTES:
            await spool.write(buffer)
            buffer = bytearray()
    await spool.write(buffer)


def _batches(archive: "_Zip") -> Iterator[list[UploadedImage]]:
    """Images in batches of a bounded amount of work. A batch may be empty."""
    members = archive.members
    batch, count, inflated_before = list[UploadedImage](), 0, 0
    for image in archive.read():
        count += 1
        if image is not None:
            batch.append(image)
        if count == _BATCH_MEMBERS or members.inflated - inflated_before >= _BATCH_BYTES:
            yield batch
            batch, count, inflated_before = [], 0, members.inflated
    yield batch


class _Zip:
    """A spooled archive of `size` bytes."""

    def __init__(self, spool: IO[bytes], size: int, limits: ArchiveLimits, members: ArchiveMembers) -> None:
        self.members = members
        self._spool = spool
        self._size = size
        self._limits = limits
        self._extents = Extents()  # of the members that were unpacked
        self._unpacked = 0  # bytes of the members that became images
        self._bombs = 0

    def read(self) -> Iterator[UploadedImage | None]:
        """Member by member; None for a member that is not an item."""
        try:
            for info in read_directory(self._spool):
                path = info.filename
                if path.endswith(("/", "\\")) or self.members.skips(path):
                    yield None
                    continue
                refusal = _kind_refusal(info) or self.members.refusal(path, info.file_size)
                yield self.members.to_image(path, refusal or self._unpack(info))
        except zipfile.BadZipFile:
            raise damaged("is not a zip, or it is damaged") from None

    def _unpack(self, info: zipfile.ZipInfo) -> bytes | ItemCode:
        """The member's bytes, whatever size its header claims.

        Raises:
            InvalidRequest: another member has some of the same bytes: few bytes would unpack to any number.
            UploadTooLarge: the archive unpacks to too many bytes, or to too many times its size.
        """
        if info.compress_type not in (
            zipfile.ZIP_STORED,
            zipfile.ZIP_DEFLATED,
        ):  # the other decompressors do not bound a read
            return ItemCode.UNSUPPORTED_COMPRESSION
        pieces, size = list[bytes](), 0
        try:
            start = self._seek(info)
            if not self._extents.add(info.header_offset, start + info.compress_size):
                raise damaged("has entries that overlap")
            with zipfile.ZipExtFile(self._spool, "r", info) as file:
                while piece := file.read(_READ_BYTES):
                    size += len(piece)
                    self.members.add_inflated(len(piece))
                    if self._limits.is_bomb(size, info.compress_size):
                        return self._bomb()
                    self._limits.check_ratio(self._unpacked + size, self._size)
                    if size > self._limits.item_bytes_max:
                        return ItemCode.ITEM_TOO_LARGE
                    pieces.append(piece)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, OverflowError, ValueError):
            return ItemCode.CORRUPT_ENTRY
        if size != info.file_size:
            return ItemCode.CORRUPT_ENTRY
        self._unpacked += size
        return b"".join(pieces)

    def _bomb(self) -> ItemCode:
        """Each takes the time of a mebibyte for a kilobyte of the archive."""
        self._bombs += 1
        if self._bombs > _BOMBS_MAX:
            raise UploadTooLarge(f"An archive may have at most {_BOMBS_MAX} entries that unpack to too many bytes.")
        return ItemCode.COMPRESSION_BOMB

    def _seek(self, info: zipfile.ZipInfo) -> int:
        """Move to the member's first byte, behind its local header. Returns its offset."""
        self._spool.seek(info.header_offset)
        header = self._spool.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size or not header.startswith(_LOCAL_MAGIC):
            raise zipfile.BadZipFile
        _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
        return self._spool.seek(info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes)


def _kind_refusal(info: zipfile.ZipInfo) -> ItemCode | None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return ItemCode.LINK_ENTRY
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return ItemCode.SPECIAL_ENTRY
    return ItemCode.ENCRYPTED_ENTRY if info.flag_bits & _ENCRYPTED else None
