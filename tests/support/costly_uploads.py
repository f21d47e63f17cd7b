"""Uploads whose cost is not in their bytes: few bytes that once took seconds of a parser, or unpacked to gigabytes."""

import gzip
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

BOUNDARY = "frontier"
TAR, ZIP, JSON = "application/x-tar", "application/zip", "application/json"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
_BLOCK = 512


class CostlyUpload(NamedTuple):
    content_type: str
    body: bytes


def tar_header(name: str, kind: bytes = tarfile.REGTYPE, size: int = 0) -> bytes:
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, size
    return info.tobuf(tarfile.USTAR_FORMAT)


def pax_header(content: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    return tar_header("pax", kind, len(content)) + content + bytes(-len(content) % _BLOCK)


def pax_record(key: bytes, value: bytes) -> bytes:
    rest = b" " + key + b"=" + value + b"\n"
    length = len(rest) + 1
    while len(b"%d" % length) + len(rest) != length:
        length += 1
    return b"%d" % length + rest


def tar_of_global_path(path: bytes, members: int) -> bytes:
    """Each member has this path, which one header gives."""
    return pax_header(pax_record(b"path", path), tarfile.XGLTYPE) + tar_header("x") * members + bytes(2 * _BLOCK)


def tar_of_small_records(records: int, headers: int) -> bytes:
    header = pax_header(b"5 a=\n" * records)
    return header * headers + tar_header("a.png") + bytes(2 * _BLOCK)


def zip_of_entries(streams: Iterable[tuple[int, bytes, int, int]], local: bytes) -> bytes:
    """A zip whose directory has, for each entry, an offset, a deflated stream, its inflated size and its CRC-32."""
    directory, count = b"", 0
    for offset, packed, size, crc in streams:
        name = b"%d" % count
        fields = (20, 0, 20, 0, 0, zipfile.ZIP_DEFLATED, 0, 0, crc, len(packed), size, len(name), 0, 0, 0, 0, 0, offset)
        directory += struct.pack("<4s4B4HL2L5H2L", b"PK\x01\x02", *fields) + name
        count += 1
    end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, count, count, len(directory), len(local), 0)
    return local + directory + end


def zip_of_one_stream(entries: int, size: int, *, zeros: bool = True) -> bytes:
    """All entries have the bytes of one deflated stream, which inflates to `size` bytes."""
    plain = bytes(size) if zeros else b"".join(b"%d" % n for n in range(size))[:size]
    packed = _deflated(plain)
    local = _local(b"0", packed, plain)
    return zip_of_entries([(0, packed, size, zlib.crc32(plain))] * entries, local)


def zip_of_bombs(entries: int, size: int) -> bytes:
    """Each entry has a stream of its own, of zeros."""
    packed = _deflated(bytes(size))
    local = _local(b"0", packed, bytes(size))
    crc = zlib.crc32(bytes(size))
    return zip_of_entries([(n * len(local), packed, size, crc) for n in range(entries)], local * entries)


def form_of_segments(segments: int, name: bytes = b"x") -> bytes:
    head = b'--frontier\r\nContent-Disposition: form-data; name="' + name + b'"\r\n\r\n\r\n'
    return head * segments + b"--frontier--\r\n"


def form_of_continued_headers(headers: int) -> bytes:
    """Each header has thousands of lines, all of which the parser reads anew for each."""
    header = b"X-A: b\r\n" + b" a\r\n" * 2000
    return (
        b"--frontier\r\n" + header * headers + b'Content-Disposition: form-data; name="files"\r\n\r\nx\r\n--frontier--'
    )


def form_of_charsets(files: int) -> bytes:
    """Each file has its name in a character set of its own, which no computer knows."""
    head = b"--frontier\r\nContent-Disposition: form-data; name=files; filename*=%s''a\r\n\r\nx\r\n"
    return b"".join(head % (b"charset-%d" % n) for n in range(files)) + b"--frontier--\r\n"


def costly_uploads() -> dict[str, Callable[[], CostlyUpload]]:
    """By what they are; each is built when it is called. All are within the limits of a header or a name, if there is
    one, and larger than a piece of a body."""
    folders = b"a/" * 2000
    return {
        "tar: a global path of 4 KB": lambda: CostlyUpload(TAR, tar_of_global_path(folders + b"x.png", 2000)),
        "tar: a global path of 4 KB that is skipped": lambda: CostlyUpload(
            TAR, tar_of_global_path(folders + b"._x", 2000)
        ),
        "tar: a global path of 4 KB with backslashes": lambda: CostlyUpload(
            TAR, tar_of_global_path(b"..a\\" * 1000 + b"._x", 2000)
        ),
        "tar: headers of 1,000 records": lambda: CostlyUpload(TAR, tar_of_small_records(1000, 100)),
        "tar: headers of 100 records": lambda: CostlyUpload(TAR, tar_of_small_records(100, 500)),
        "tar, gzip: a global path of 4 KB that is skipped": lambda: CostlyUpload(
            TAR, gzip.compress(tar_of_global_path(folders + b"._x", 2000), 9, mtime=0)
        ),
        "tar, gzip: headers of 1,000 records": lambda: CostlyUpload(
            TAR, gzip.compress(tar_of_small_records(1000, 100), 9, mtime=0)
        ),
        "tar, gzip: empty gzip members": lambda: CostlyUpload(TAR, gzip.compress(b"", mtime=0) * 20_000),
        "form: segments without content": lambda: CostlyUpload(FORM, form_of_segments(5000)),
        "form: files without content": lambda: CostlyUpload(FORM, form_of_segments(5000, b"files")),
        "form: headers of 2,000 lines": lambda: CostlyUpload(FORM, form_of_continued_headers(7)),
        "form: names in unknown character sets": lambda: CostlyUpload(FORM, form_of_charsets(4000)),
        "URLs: 100,000 empty ones": lambda: CostlyUpload(JSON, b'{"urls":[' + b'"",' * 100_000 + b'""]}'),
        "URLs: prefixes": lambda: CostlyUpload(JSON, b'{"urls":[' + b'"s3://a/",' * 30_000 + b'""]}'),
        "URLs: one of 200 KB": lambda: CostlyUpload(JSON, b'{"urls":["http://' + b"a" * 200_000 + b'"]}'),
        "URLs: a number of 200,000 digits": lambda: CostlyUpload(JSON, b'{"urls":[' + b"1" * 200_000 + b"]}"),
        "zip: 200 entries of one stream": lambda: CostlyUpload(ZIP, zip_of_one_stream(200, 10 << 20)),
        "zip: 10,000 entries of one small stream": lambda: CostlyUpload(
            ZIP, zip_of_one_stream(10_000, 1000, zeros=False)
        ),
        "zip: 60 bombs below a MiB": lambda: CostlyUpload(ZIP, zip_of_bombs(60, 1 << 20)),
        "zip: 60 bombs": lambda: CostlyUpload(ZIP, zip_of_bombs(60, 2 << 20)),
    }


def _deflated(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return packer.compress(data) + packer.flush()


def _local(name: bytes, packed: bytes, plain: bytes) -> bytes:
    fields = (20, 0, zipfile.ZIP_DEFLATED, 0, 0, zlib.crc32(plain), len(packed), len(plain), len(name), 0)
    return struct.pack("<4s5H3L2H", b"PK\x03\x04", *fields) + name + packed
