"""Reads the central directory of a zip archive, a slice at a time.

`zipfile.ZipFile` makes an object of every member before it returns the first: 0.6 GB for a million of them, and only
reading the directory shows how many there are (docs/decisions/0018-zip-directory-in-slices.md).
"""

import io
import struct
from collections.abc import Iterator
from typing import IO
from zipfile import BadZipFile, ZipInfo
from zlib import crc32

_SLICE_BYTES = 64 << 10
_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_COMMENT_BYTES_MAX = 0xFFFF
_LOCATOR64 = struct.Struct("<4sLQL")
_LOCATOR64_MAGIC = b"PK\x06\x07"
_END64 = struct.Struct("<4sQ2H2L4Q")
_END64_MAGIC = b"PK\x06\x06"
_FILE_HEADER = struct.Struct("<4s4B4HL2L5H2L")
_FILE_HEADER_MAGIC = b"PK\x01\x02"
_EXTRA64 = 1  # the id of the zip64 extra field
_EXTRA_UNICODE_PATH = 0x7075  # that of the field with the name in UTF-8, from WinRAR, 7-Zip and others
_IN_EXTRA64 = 0xFFFFFFFF  # in a 32-bit field whose value is in the zip64 extra field


def read_directory(spool: IO[bytes]) -> Iterator[ZipInfo]:
    """An archive's members. The caller may move the spool's position between two of them.

    Raises:
        BadZipFile: the spool is not a zip archive, or it is cut off or damaged.
    """
    at, end, shift = _find_directory(spool)
    rest = b""
    while at < end:
        spool.seek(at)
        data = spool.read(min(_SLICE_BYTES, end - at))
        at += len(data)
        rest += data
        offset = 0
        while len(rest) - offset >= _FILE_HEADER.size:
            fields = _FILE_HEADER.unpack_from(rest, offset)
            name_end = offset + _FILE_HEADER.size + fields[12]
            extra_end = name_end + fields[13]
            comment_end = extra_end + fields[14]
            if fields[0] != _FILE_HEADER_MAGIC:
                raise BadZipFile
            if comment_end > len(rest):
                break
            yield _member(fields, rest[offset + _FILE_HEADER.size : name_end], rest[name_end:extra_end], shift)
            offset = comment_end
        rest = rest[offset:]
    if rest:
        raise BadZipFile


def _find_directory(spool: IO[bytes]) -> tuple[int, int, int]:
    """Start and end of the directory, and how far the archive's offsets are off: a program may stand before it."""
    tail_at = max(0, spool.seek(0, io.SEEK_END) - _END.size - _COMMENT_BYTES_MAX)
    spool.seek(tail_at)
    tail = spool.read()
    at = len(tail)
    while (at := tail.rfind(_END_MAGIC, 0, at)) >= 0:
        if at + _END.size <= len(tail) and (found := _directory_before(spool, tail_at + at, tail[at:])):
            return found  # whatever stands behind it: unzip, 7-Zip and Windows take such archives, too
    raise BadZipFile


def _directory_before(spool: IO[bytes], end: int, record: bytes) -> tuple[int, int, int] | None:
    """As `_find_directory`, of the end record at `end`; None if there is no directory before it.

    The record may be none: its magic may stand in a comment, behind the archive, or in a zip inside it.
    """
    *_, members, size, offset, _ = _END.unpack_from(record)
    locator = _read_at(spool, end - _LOCATOR64.size, _LOCATOR64.size)
    if locator.startswith(_LOCATOR64_MAGIC):
        end -= _LOCATOR64.size + _END64.size
        end64 = _read_at(spool, end, _END64.size)
        if not end64.startswith(_END64_MAGIC):
            return None
        *_, members, size, offset = _END64.unpack(end64)
    start = end - size
    if start < offset:
        return None
    is_directory = _read_at(spool, start, 4) == _FILE_HEADER_MAGIC if members else not size
    return (start, end, start - offset) if is_directory else None


def _read_at(spool: IO[bytes], at: int, size: int) -> bytes:
    if at < 0:
        return b""
    spool.seek(at)
    return spool.read(size)


def _member(fields: tuple[int, ...], name: bytes, extra: bytes, shift: int) -> ZipInfo:
    info = ZipInfo(_path(name, extra))
    info.create_system = fields[2]
    info.flag_bits, info.compress_type = fields[5:7]
    info.CRC, info.compress_size, info.file_size = fields[9:12]
    info.external_attr, info.header_offset = fields[17:19]
    if _IN_EXTRA64 in fields[10:12] or fields[18] == _IN_EXTRA64:
        _read_extra64(info, extra)
    info.header_offset += shift
    return info


def _path(name: bytes, extra: bytes) -> str:
    try:
        return name.decode()  # also without the UTF-8 flag: macOS's archiver never sets it
    except UnicodeDecodeError:
        at, size = _extra_field(extra, _EXTRA_UNICODE_PATH)
        version_and_checksum, path = extra[at : at + 5], extra[at + 5 : at + size]
        if version_and_checksum == struct.pack("<BL", 1, crc32(name)):  # else the name was changed later
            return path.decode(errors="replace")
        return name.decode("cp437")


def _extra_field(extra: bytes, wanted: int) -> tuple[int, int]:
    """Where the content of an extra field begins, and its length; the end and 0 if there is no such field."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        at += 4
        if kind == wanted:
            return at, size
        at += size
    return len(extra), 0


def _read_extra64(info: ZipInfo, extra: bytes) -> None:
    at, _ = _extra_field(extra, _EXTRA64)
    # The field has those that do not fit, in this order.
    for field in ("file_size", "compress_size", "header_offset"):
        if getattr(info, field) == _IN_EXTRA64:
            if at + 8 > len(extra):
                raise BadZipFile
            (value,) = struct.unpack_from("<Q", extra, at)
            setattr(info, field, value)
            at += 8
