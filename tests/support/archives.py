"""Builds archives for tests, and reads them with the API's readers."""

import struct
import tarfile
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping
from io import BytesIO
from typing import Any

from api.uploads.archive_limits import ArchiveLimits
from api.uploads.source import ArchiveStats, UploadedImage
from api.uploads.tar import read_tar
from api.uploads.zip import read_zip
from api.uploads.zip_spool import ZipSpools
from jobs.owner_shares import OWNER_OF_ALL

UNICODE_PATH = 0x7075  # an extra field of a zip's member: its name in UTF-8
LIMITS = ArchiveLimits(
    item_bytes_max=10_000,
    members_max=1000,
    inflated_bytes_max=64 << 20,
    ratio_max=200,
    name_bytes_max=4096,
    header_bytes_max=64 << 10,
    header_records_max=1000,
    spool_bytes_max=1000,
    zip_bytes_max=1 << 20,
)


def make_tar(
    files: Mapping[str, bytes] | Iterable[tuple[str, bytes]], *, kind: int = tarfile.PAX_FORMAT, mode: str = "w"
) -> bytes:
    file = BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=kind) as archive:  # type: ignore[call-overload]  # any mode
        for name, data in files.items() if isinstance(files, Mapping) else files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, BytesIO(data))
    return file.getvalue()


def make_zip(files: Mapping[str, bytes], **options: Any) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def zip_with_name(name: bytes, extra: bytes = b"") -> bytes:
    """An archive of one member with this name, whose encoding no flag says, and this extra field."""
    data = make_zip({"n" * len(name): b"x"})
    at = data.index(b"PK\x01\x02")
    header = bytearray(data[at : data.index(b"PK\x05\x06")])
    header[30:32] = struct.pack("<H", len(extra))
    header[46 : 46 + len(name)] = name
    local = data[:at].replace(b"n" * len(name), name)
    end = bytearray(data[data.index(b"PK\x05\x06") :])
    end[12:16] = struct.pack("<L", len(header) + len(extra))
    return local + bytes(header[: 46 + len(name)]) + extra + bytes(header[46 + len(name) :]) + bytes(end)


def unicode_path(name: bytes, path: str, *, version: int = 1) -> bytes:
    content = struct.pack("<BL", version, zlib.crc32(name)) + path.encode()
    return struct.pack("<HH", UNICODE_PATH, len(content)) + content


async def _pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


async def untar(data: bytes, *, size: int = 700, limits: ArchiveLimits = LIMITS) -> tuple[list[UploadedImage], int]:
    """The images of a tar that arrives in pieces of `size` bytes, and how many members were skipped."""
    stats = ArchiveStats()
    images = [image async for image in read_tar(_pieces(data, size), limits, stats)]
    return images, stats.skipped


async def unzip(
    data: bytes, *, size: int = 700, limits: ArchiveLimits = LIMITS, spools: ZipSpools | None = None
) -> tuple[list[UploadedImage], int]:
    """As `untar`, for a zip."""
    stats, spools = ArchiveStats(), spools or ZipSpools(bytes_max=1 << 30, free_bytes_min=1)
    images = [image async for image in read_zip(_pieces(data, size), limits, stats, spools, OWNER_OF_ALL)]
    return images, stats.skipped
