"""Tar archives, also gzip-compressed, read as they arrive.

The standard library's `tarfile` reads from files, blocking, and its header parser takes 14 µs an entry, as much as all
that the server may spend on a small image here; this one takes 3 (docs/decisions/0013-tar-headers.md).
"""

import asyncio
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from typing import NamedTuple

from api.uploads.archive_limits import ArchiveLimits, Entries, damaged
from api.uploads.source import ArchiveStats, UploadedImage
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode

_BLOCK = 512
_END = bytes(_BLOCK)
_META_BYTES_MAX = 1 << 20  # of one extended header
_PIECE_BYTES = 256 << 10  # inflated at a time: a few milliseconds
_GZIP = b"\x1f\x8b"
_GZIP_WBITS = 31
_FILE_KINDS = (b"0", b"\0", b"7")
_LINK_KINDS = (b"1", b"2")
_FOLDER = b"5"
_SPARSE = b"S"
_DATALESS_KINDS = (b"1", b"2", b"3", b"4", b"5", b"6")  # whatever size their header names
_NO_CONTENT_KINDS = (
    _FOLDER,
    b"D",
    b"V",
)  # the latter two are GNU's: a folder with a list of its files, a volume's label
_META_KINDS = (b"L", b"K", b"x", b"X", b"g")  # GNU's long names and links, PAX's records, also as Solaris marks them
_RECORDS = frozenset((b"path", b"size", b"GNU.sparse.name", b"GNU.sparse.size", b"GNU.sparse.major"))
_SPARSE_RECORDS = frozenset((b"GNU.sparse.size", b"GNU.sparse.major"))  # each version has one of them
_CHECKSUM = slice(148, 156)
_ADLER_MODULUS = 65_521
_MAGIC = slice(257, 263)
_USTAR = b"ustar\0"
_MAGICS = (_USTAR, b"ustar ")


async def read_tar(
    parts: AsyncIterator[bytes], limits: ArchiveLimits, tally: ArchiveStats
) -> AsyncGenerator[UploadedImage]:
    """The files of an archive, each once its last byte has come. Holds one of them at most.

    Raises:
        InvalidRequest: it is no tar archive, cut off or damaged.
        UploadTooLarge: it has too many entries or bytes unpacked, or unpacks too well.
    """
    tar = _Tar(limits, Entries(limits, tally))
    gzip: _Gunzip | None = None
    head = b""
    async for part in parts:
        if len(head) < len(_GZIP):
            head += part
            if len(head) < len(_GZIP):
                continue
            part, gzip = head, _Gunzip(limits) if head.startswith(_GZIP) else None  # noqa: PLW2901 - the head is read
        for piece in gzip.feed(part) if gzip is not None else (part,):
            for image in tar.feed(piece):
                yield image
            if gzip is not None:
                await asyncio.sleep(0)  # others' requests go on between two pieces
    if gzip is not None:
        gzip.close()
    tar.close()


class _Gunzip:
    """Inflates a gzip stream of one or more members, a bounded piece at a time."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        self._compressed = 0
        self._inflated = 0
        self._ended = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        self._compressed += len(data)
        while data:
            if self._inflater.eof:
                if not data.startswith(_GZIP[: len(data)]):  # padding after the last member
                    return
                self._inflater = zlib.decompressobj(_GZIP_WBITS)
            try:
                piece = self._inflater.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise damaged("is damaged: its gzip stream cannot be read") from None
            self._inflated += len(piece)
            if self._limits.is_bomb(self._inflated, self._compressed):
                raise UploadTooLarge(f"An archive may unpack to {self._limits.ratio_max:g} times its bytes.")
            yield piece
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail

    def close(self) -> None:
        if not self._inflater.eof:
            raise damaged("is cut off")


class _Header(NamedTuple):
    kind: bytes
    path: str
    size: int
    padded: int
    """With what fills the last block."""
    keep: bool
    """Whether the bytes are wanted."""
    refused: ItemCode | None


class _Tar:
    """Pushed bytes into files."""

    def __init__(self, limits: ArchiveLimits, entries: Entries) -> None:
        self._limits = limits
        self._entries = entries
        self._buffer = bytearray()
        self._header: _Header | None = None  # of the entry whose bytes are awaited
        self._pass_over = 0  # bytes to come that are not wanted
        self._begun = False
        self._over = False
        self._globals = dict[bytes, bytes]()  # of PAX headers for the whole archive
        self._meta = dict[bytes, bytes]()  # of those for the next entry
        self._awaits_entry = False  # for which such a header has come
        self._sparse_map_goes_on = False  # between the header of one of GNU's sparse files and its bytes

    def feed(self, data: bytes) -> Iterator[UploadedImage]:
        self._entries.inflate(len(data))
        if self._over:
            return
        self._buffer += data
        at = 0
        while not self._over:
            if self._pass_over:
                step = min(self._pass_over, len(self._buffer) - at)
                at += step
                self._pass_over -= step
            if self._header is None or self._sparse_map_goes_on:
                if len(self._buffer) - at < _BLOCK:
                    break
                self._read_block(bytes(self._buffer[at : at + _BLOCK]))
                at += _BLOCK
                continue
            header = self._header
            if header.keep and len(self._buffer) - at < header.padded:
                break
            self._header = None
            if not header.keep:
                self._pass_over = header.padded
                if header.refused is not None:
                    yield self._entries.image(header.path, header.refused)
                continue
            body = bytes(self._buffer[at : at + header.size])
            at += header.padded
            if header.kind in _META_KINDS:
                self._read_meta(header.kind, body)
            else:
                yield self._entries.image(header.path, body)
        del self._buffer[:at]

    def close(self) -> None:
        if not self._begun:
            raise InvalidRequest("The upload is no tar archive.") if self._buffer else damaged("is empty")
        if self._over:
            return
        if self._header is not None or self._awaits_entry or self._pass_over or self._buffer:
            raise damaged("is cut off")

    def _read_block(self, block: bytes) -> None:
        if self._sparse_map_goes_on:
            self._sparse_map_goes_on = block[504] != 0
        elif block == _END:
            self._begun = self._over = True
        else:
            self._read_header(block)

    def _read_header(self, block: bytes) -> None:
        if not self._begun and block[_MAGIC] not in _MAGICS and not _checked(block):
            raise InvalidRequest("The upload is no tar archive.")
        self._begun = True
        kind, size = block[156:157], self._size(block)
        if kind in _META_KINDS:
            if size > _META_BYTES_MAX:
                raise damaged("is damaged: it has a header that is too long")
            self._awaits_entry |= kind != b"g"
            self._header = _Header(kind, "", size, _padded(size), keep=True, refused=None)
        else:
            if not _SPARSE_RECORDS.isdisjoint(self._meta):
                kind = _SPARSE
            self._sparse_map_goes_on = block[156:157] == _SPARSE and block[482] != 0
            path, self._meta, self._awaits_entry = self._path(block), {}, False
            size = 0 if kind in _DATALESS_KINDS else size
            keep, refused = self._judge(kind, path, size)
            self._header = _Header(kind, path, size, _padded(size), keep, refused)

    def _size(self, block: bytes) -> int:
        try:
            if not _checked(block):
                raise ValueError
            size = _number(block[124:136])
            if block[156:157] not in _META_KINDS:
                size = int(self._meta.get(b"size", size))
            if size < 0:
                raise ValueError
        except ValueError:
            raise damaged("is damaged: it has a header that cannot be read") from None
        return size

    def _judge(self, kind: bytes, path: str, size: int) -> tuple[bool, ItemCode | None]:
        """Whether an entry's bytes are wanted, and if not, its code; none for what is no content."""
        if kind in _NO_CONTENT_KINDS or (kind == b"\0" and path.endswith("/")):  # so old archives write a folder
            return False, None
        if self._entries.skips(path):
            return False, None
        if kind not in _FILE_KINDS:
            return False, ItemCode.LINK_ENTRY if kind in _LINK_KINDS else ItemCode.SPECIAL_ENTRY
        refused = self._entries.problem(path, size)
        return refused is None, refused

    def _path(self, block: bytes) -> str:
        name = self._meta.get(b"GNU.sparse.name") or self._meta.get(b"path") or self._globals.get(b"path")
        if name is None:
            name = block[:100].split(b"\0", 1)[0]
            if block[_MAGIC] == _USTAR and (prefix := block[345:500].split(b"\0", 1)[0]):
                name = prefix + b"/" + name
        return name.decode(errors="surrogateescape").removeprefix("./")  # names in other encodings stay different ones

    def _read_meta(self, kind: bytes, body: bytes) -> None:
        if kind == b"L":
            self._meta[b"path"] = body.split(b"\0", 1)[0]
        elif kind in b"xXg":
            try:
                records = {key: value for key, value in _pax_records(body) if key in _RECORDS}
            except ValueError:
                raise damaged("is damaged: it has a PAX header that cannot be read") from None
            (self._globals if kind == b"g" else self._meta).update(records)


def _checked(block: bytes) -> bool:
    """Whether the header's checksum is right: the sum of its bytes, those of the checksum itself taken as spaces.

    Old programs took the bytes as signed.
    """
    try:
        checksum = _number(block[_CHECKSUM])
    except ValueError:
        return False
    summed = block[: _CHECKSUM.start] + b" " * 8 + block[_CHECKSUM.stop :]
    excess = ((zlib.adler32(summed) & 0xFFFF) - 1 - checksum) % _ADLER_MODULUS  # a fifth of the time of sum()
    return not excess or excess == 256 * sum(byte > 0x7F for byte in summed) % _ADLER_MODULUS


def _number(digits: bytes) -> int:
    """Octal digits, or where GNU writes a large number, two's complement behind a byte of 0x80 or 0xff."""
    if digits[0] in (0x80, 0xFF):
        return int.from_bytes(digits[1:], "big") - (256 ** (len(digits) - 1) if digits[0] == 0xFF else 0)
    return int(digits.split(b"\0", 1)[0].strip() or b"0", 8)


def _padded(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK


def _pax_records(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Each is "length key=value", a space and a newline included in the length."""
    at = 0
    while at < len(body):
        length, _, _ = body[at : at + 20].partition(b" ")
        end = at + int(length)
        key, equals, value = body[at + len(length) + 1 : end - 1].partition(b"=")
        if not length.isdigit() or not equals or end > len(body) or body[end - 1 : end] != b"\n":
            raise ValueError
        yield key, value
        at = end
