"""Reads tar archives, also gzip-compressed, as they arrive.

The standard library's `tarfile` reads from files, blocking, and its header parser takes 14 µs a member, as much as the
whole budget of a small image in this process; this parser takes 3 µs (docs/decisions/0013-own-tar-parser.md).
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import NamedTuple

from api.uploads.archive_limits import ArchiveLimits, ArchiveMembers, damaged
from api.uploads.gunzip import GZIP, Gunzip
from api.uploads.source import ArchiveStats, UploadedImage, decode_name
from jobs.errors import InvalidRequest
from jobs.item_codes import ItemCode

_BLOCK = 512
_END = bytes(_BLOCK)
_TURN_STEPS = 256  # headers and PAX records between two turns of the event loop: about a millisecond
_FILE_KINDS = (b"0", b"\0", b"7")
_LINK_KINDS = (b"1", b"2")
_FOLDER = b"5"
_SPARSE = b"S"
_DATALESS_KINDS = (b"1", b"2", b"3", b"4", b"5", b"6")  # no bytes follow, whatever size their header names
_NO_CONTENT_KINDS = (
    _FOLDER,
    b"D",
    b"V",
)  # D and V are GNU's: a folder with a list of its files, a volume's label
_META_KINDS = (b"L", b"K", b"x", b"X", b"g")  # GNU's long names and links; PAX records, with the letter of Solaris too
_RECORDS = frozenset((b"path", b"size", b"GNU.sparse.name", b"GNU.sparse.size", b"GNU.sparse.major"))
_SPARSE_RECORDS = frozenset((b"GNU.sparse.size", b"GNU.sparse.major"))  # each version of the format has one of them
_CHECKSUM = slice(148, 156)
_ADLER_MODULUS = 65_521
_MAGIC = slice(257, 263)
_USTAR = b"ustar\0"
_MAGICS = (_USTAR, b"ustar ")


async def read_tar(
    pieces: AsyncIterator[bytes], limits: ArchiveLimits, stats: ArchiveStats
) -> AsyncGenerator[UploadedImage]:
    """The files of an archive, each once its last byte has arrived. Buffers at most one of them.

    Raises:
        InvalidRequest: the body is not a tar archive, or it is cut off or damaged.
        UploadTooLarge: the archive has too many members or unpacked bytes, or its compression ratio is too high.
    """
    tar = _TarParser(limits, ArchiveMembers(limits, stats))
    gunzip: Gunzip | None = None
    head = b""
    async for piece in pieces:
        if len(head) < len(GZIP):
            head += piece
            if len(head) < len(GZIP):
                continue
            piece, gunzip = head, Gunzip(limits) if head.startswith(GZIP) else None  # noqa: PLW2901 - with the head
        for data in gunzip.feed(piece) if gunzip is not None else (piece,):
            for image in tar.feed(data):
                if image is None:
                    await asyncio.sleep(0)  # let other requests run
                else:
                    yield image
            if gunzip is not None:
                await asyncio.sleep(0)
    if gunzip is not None:
        gunzip.close()
    tar.close()


class _Header(NamedTuple):
    kind: bytes
    path: str
    size: int
    padded_size: int
    """The size in the archive, with the padding of the last block."""
    has_content: bool
    """Whether the parser needs the member's bytes, rather than skips them."""
    refusal: ItemCode | None


class _TarParser:
    """Parses bytes as they arrive into the archive's files."""

    def __init__(self, limits: ArchiveLimits, members: ArchiveMembers) -> None:
        self._limits = limits
        self._members = members
        self._buffer = bytearray()
        self._header: _Header | None = None  # of the member whose bytes come next
        self._skip_bytes = 0  # of the input to come
        self._started = False
        self._ended = False
        self._global_records = dict[bytes, bytes]()  # of PAX headers for the whole archive
        self._records = dict[bytes, bytes]()  # of extended headers for the next member
        self._expects_member = False  # after such an extended header
        self._sparse_map_continues = False  # between the header of a GNU sparse file and its bytes
        self._steps = 0  # since the event loop's last turn

    def feed(self, data: bytes) -> Iterator[UploadedImage | None]:
        """The images that are complete with these bytes; None where the event loop is to have a turn."""
        self._members.add_inflated(len(data))
        if self._ended:
            return
        self._buffer += data
        at = 0
        while not self._ended:
            skipped = min(self._skip_bytes, len(self._buffer) - at)
            at += skipped
            self._skip_bytes -= skipped
            if self._header is None or self._sparse_map_continues:
                if len(self._buffer) - at < _BLOCK:
                    break
                self._read_block(bytes(self._buffer[at : at + _BLOCK]))
                at += _BLOCK
                if self._turn_is_due():
                    yield None
                continue
            header = self._header
            if header.has_content and len(self._buffer) - at < header.padded_size:
                break
            self._header = None
            if not header.has_content:
                self._skip_bytes = header.padded_size
                if header.refusal is not None:
                    yield self._members.to_image(header.path, header.refusal)
                continue
            content = bytes(memoryview(self._buffer)[at : at + header.size])
            at += header.padded_size
            if header.kind in _META_KINDS:
                self._read_records(header.kind, content)
            else:
                yield self._members.to_image(header.path, content)
        del self._buffer[:at]

    def _turn_is_due(self) -> bool:
        self._steps += 1
        if self._steps < _TURN_STEPS:
            return False
        self._steps = 0
        return True

    def close(self) -> None:
        if not self._started:
            raise (
                InvalidRequest("The upload is not a tar archive, compressed with gzip or not at all.")
                if self._buffer
                else damaged("is empty")
            )
        if self._ended:
            return
        if self._header is not None or self._expects_member or self._skip_bytes or self._buffer:
            raise damaged("is cut off")

    def _read_block(self, block: bytes) -> None:
        if self._sparse_map_continues:
            self._sparse_map_continues = block[504] != 0
        elif block == _END:
            self._started = self._ended = True
        else:
            self._read_header(block)

    def _read_header(self, block: bytes) -> None:
        if not self._started and block[_MAGIC] not in _MAGICS and not _has_valid_checksum(block):
            raise InvalidRequest("The upload is not a tar archive, compressed with gzip or not at all.")
        self._started = True
        kind, size = block[156:157], self._size(block)
        if kind in _META_KINDS:
            if size > self._limits.header_bytes_max:
                raise damaged(f"has a header of more than {self._limits.header_bytes_max} bytes")
            self._expects_member |= kind != b"g"
            self._header = _Header(kind, "", size, _padded(size), has_content=True, refusal=None)
        else:
            if not _SPARSE_RECORDS.isdisjoint(self._records):
                kind = _SPARSE
            self._sparse_map_continues = block[156:157] == _SPARSE and block[482] != 0
            path, self._records, self._expects_member = self._path(block), {}, False
            size = 0 if kind in _DATALESS_KINDS else size
            has_content, refusal = self._classify(kind, path, size)
            self._header = _Header(kind, path, size, _padded(size), has_content, refusal)

    def _size(self, block: bytes) -> int:
        try:
            if not _has_valid_checksum(block):
                raise ValueError
            size = _number(block[124:136])
            if block[156:157] not in _META_KINDS:
                size = int(self._records.get(b"size", size))
            if size < 0:
                raise ValueError
        except ValueError:
            raise damaged("is damaged: it has a header that cannot be read") from None
        return size

    def _classify(self, kind: bytes, path: str, size: int) -> tuple[bool, ItemCode | None]:
        """Whether the member's bytes are needed, and if not, why it is refused; None if it is not an item at all."""
        if kind in _NO_CONTENT_KINDS or (kind == b"\0" and path.endswith("/")):  # how old archives mark a folder
            return False, None
        if self._members.skips(path):
            return False, None
        if kind not in _FILE_KINDS:
            return False, ItemCode.LINK_ENTRY if kind in _LINK_KINDS else ItemCode.SPECIAL_ENTRY
        refusal = self._members.refusal(path, size)
        return refusal is None, refusal

    def _path(self, block: bytes) -> str:
        name = self._records.get(b"GNU.sparse.name") or self._records.get(b"path") or self._global_records.get(b"path")
        if name is None:
            name = block[:100].split(b"\0", 1)[0]
            if block[_MAGIC] == _USTAR and (prefix := block[345:500].split(b"\0", 1)[0]):
                name = prefix + b"/" + name
        return decode_name(name).removeprefix("./")

    def _read_records(self, kind: bytes, content: bytes) -> None:
        if kind == b"L":
            self._records[b"path"] = self._cut(content.partition(b"\0")[0])
        elif kind in b"xXg":
            try:
                records = {key: self._cut(value) for key, value in self._pax_records(content) if key in _RECORDS}
            except ValueError:
                raise damaged("is damaged: it has a PAX header that cannot be read") from None
            (self._global_records if kind == b"g" else self._records).update(records)

    def _cut(self, value: bytes) -> bytes:
        """So much of a record as shows that it is too long: a path for the whole archive is read for each member."""
        return value[: self._limits.name_bytes_max + 1]

    def _pax_records(self, content: bytes) -> Iterator[tuple[bytes, bytes]]:
        for count, record in enumerate(_pax_records(content), 1):
            if count > self._limits.header_records_max:
                raise damaged(f"has a PAX header of more than {self._limits.header_records_max} records")
            self._steps += 1
            yield record


def _has_valid_checksum(block: bytes) -> bool:
    """Whether a header's checksum is the sum of its bytes, with the checksum's own bytes taken as spaces.

    Old programs summed the bytes as signed numbers.
    """
    try:
        checksum = _number(block[_CHECKSUM])
    except ValueError:
        return False
    summed = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    excess = ((zlib.adler32(summed) & 0xFFFF) - 1 - checksum) % _ADLER_MODULUS  # a fifth of the time of sum()
    return not excess or excess == 256 * sum(byte > 0x7F for byte in summed) % _ADLER_MODULUS


def _number(digits: bytes) -> int:
    """Octal digits; for a large number, GNU writes two's complement behind a byte of 0x80 or 0xff instead."""
    if digits[0] in (0x80, 0xFF):
        return int.from_bytes(digits[1:], "big") - (256 ** (len(digits) - 1) if digits[0] == 0xFF else 0)
    return int(digits.split(b"\0", 1)[0].strip() or b"0", 8)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pax_records(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each record is "length key=value" and a newline; the length counts itself, the space and the newline."""
    at = 0
    while at < len(content):
        length, _, _ = content[at : at + 20].partition(b" ")
        end = at + int(length)
        key, equals, value = content[at + len(length) + 1 : end - 1].partition(b"=")
        if not length.isdigit() or not equals or end > len(content) or content[end - 1 : end] != b"\n":
            raise ValueError
        yield key, value
        at = end
