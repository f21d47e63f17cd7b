"""Real uploads of every kind, and damaged copies of them: the same seed gives the same bytes."""

import gzip
import json
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from random import Random

from PIL import Image, PngImagePlugin

from tests.support.archives import make_tar, make_zip
from tests.support.pictures import encode, heic, photo, samples

BOUNDARY = "frontier"
BYTES_MAX = 96 << 10  # the longest result of a mutation
SIZES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 1 << 62, (1 << 64) - 1)
_OCTAL = (b"77777777777\0", b"00000000000\0", b"-0000000001\0", b"\x80" + b"\xff" * 11, b"\xff" * 12, b"9" * 12)
_TAR_BLOCK = 512


@dataclass(frozen=True)
class Kind:
    """Uploads of one kind."""

    media_types: Sequence[str]
    wholes: Sequence[bytes]
    repair: Callable[[bytearray], None] = lambda _: None
    """Corrects checksums, so that decoders read the damaged bytes after them."""
    zipped: bool = False
    """Whether half of the mutations damage the compressed content and not the gzip file."""


@dataclass(frozen=True)
class Upload:
    path: str
    content_type: str
    body: bytes


@cache
def pictures() -> dict[str, list[bytes]]:
    """Small pictures by format, in every variant that Pillow can write."""
    shirt = samples()["0007-shirt.png"]
    colour = photo(shirt, size=(56, 40))
    gray, palette = colour.convert("L"), colour.convert("P")
    frames = [colour.rotate(angle) for angle in (90, 180)]
    text_chunks = PngImagePlugin.PngInfo()
    text_chunks.add_text("Title", "a shirt" * 40, zip=True)
    text_chunks.add_itxt("Author", "größe" * 20, zip=True)
    animated = {"save_all": True, "append_images": frames, "duration": 20}
    exif = Image.Exif()
    exif[0x0112] = 6
    return {
        "png": [
            shirt,
            encode(colour, "PNG", pnginfo=text_chunks, icc_profile=bytes(200), exif=exif),
            encode(colour.convert("RGBA"), "PNG"),
            encode(palette, "PNG", transparency=bytes(range(200))),
            encode(palette, "PNG", transparency=3),
            encode(gray.convert("1"), "PNG"),
            encode(gray.convert("LA"), "PNG"),
            encode(gray.convert("I;16"), "PNG"),
            encode(colour, "PNG", **animated),
        ],
        "jpeg": [
            encode(colour, "JPEG", exif=exif, icc_profile=bytes(200), comment=b"a shirt"),
            encode(colour, "JPEG", progressive=True),
            encode(colour.convert("CMYK"), "JPEG"),
            encode(gray, "JPEG", quality=20, optimize=True),
            encode(colour, "JPEG", restart_marker_blocks=2, subsampling="4:4:4"),
        ],
        "webp": [
            encode(colour, "WEBP", exif=exif, icc_profile=bytes(200)),
            encode(colour, "WEBP", lossless=True),
            encode(colour.convert("RGBA"), "WEBP"),
            encode(colour, "WEBP", **animated),
        ],
        "gif": [
            encode(palette, "GIF", comment=b"a shirt"),
            encode(palette, "GIF", transparency=3, interlace=1),
            encode(palette, "GIF", **animated),
        ],
        "bmp": [encode(colour, "BMP"), encode(palette, "BMP"), encode(gray.convert("1"), "BMP")],
        "avif": [encode(colour, "AVIF"), encode(colour.convert("RGBA"), "AVIF", exif=exif)],
        "heic": [heic(colour), heic(colour.convert("RGBA"), exif=exif.tobytes())],
        "tiff": [
            encode(colour, "TIFF"),
            encode(colour, "TIFF", compression="tiff_lzw"),
            encode(colour, "TIFF", compression="jpeg", save_all=True, append_images=frames),
            encode(gray.convert("1"), "TIFF", compression="group4"),
            encode(gray.convert("I;16"), "TIFF", compression="tiff_deflate"),
            encode(palette, "TIFF"),
        ],
    }


@cache
def kinds() -> dict[str, Kind]:
    """Every kind of upload that a submit takes."""
    by_format = pictures()
    few = {f"photos/{n:02}.{name}": wholes[0] for n, (name, wholes) in enumerate(by_format.items())}
    many = {f"{n:03}.png": by_format["png"][0] for n in range(70)}  # more than one chunk takes
    deep = {"/".join(["folder"] * 20) + "/größe.png": by_format["png"][0]} | few
    tars = ("application/x-tar", "application/octet-stream", "application/gzip", "")
    zips = ("application/zip", "application/octet-stream", "")
    images = ("image/png", "image/*", "application/octet-stream", "")
    return {
        "png": Kind(images, by_format["png"], repair_png),
        **{name: Kind(images, by_format[name]) for name in by_format if name != "png"},
        "multipart": Kind(
            (f"multipart/form-data; boundary={BOUNDARY}", f'multipart/form-data; boundary="{BOUNDARY}"'),
            [_multipart(few), _multipart(many), _multipart({"größe.png": by_format["png"][0]}), _with_fields(few)],
        ),
        "ustar": Kind(tars, [make_tar(it, kind=tarfile.USTAR_FORMAT) for it in (few, many)], _repair_tar),
        "gnu": Kind(tars, [make_tar(it, kind=tarfile.GNU_FORMAT) for it in (deep, many)], _repair_tar),
        "pax": Kind(tars, [make_tar(deep), _tar_of_all_sorts()], _repair_tar),
        "tgz": Kind(tars, [make_tar(it, mode="w:gz") for it in (few, many, deep)], _repair_tar, zipped=True),
        "stored": Kind(zips, [make_zip(few), make_zip(many)]),
        "deflated": Kind(zips, [make_zip(it, compression=zipfile.ZIP_DEFLATED) for it in (few, many)]),
        "zip64": Kind(zips, [_zip64(few)]),
        "json": Kind(
            ("application/json", "application/json; charset=utf-8"),
            [
                json.dumps({"urls": ["https://example.com/a.png", "http://127.0.0.1/b?q#f"]}).encode(),
                json.dumps({"urls": [f"https://example.com/{n}.png" for n in range(100)]}).encode(),
                json.dumps({"urls": ["https://[::1]:8/ü.png", "ftp://x", "", "https://" + "a" * 3000]}).encode(),
            ],
        ),
    }


def upload(random: Random, kind: str) -> Upload:
    """A damaged upload of this kind."""
    path, of_kind = "/v1/jobs", kinds()[kind]
    content_type, whole = random.choice(of_kind.media_types), random.choice(of_kind.wholes)
    if kind == "multipart" and random.random() < 0.2:
        path, whole = "/predict", _multipart({"shirt.png": pictures()["png"][0]}, field="file")
    inside = of_kind.zipped and random.random() < 0.5
    body = damaged(random, gzip.decompress(whole) if inside else whole, of_kind.wholes)
    if random.random() < 0.7:
        of_kind.repair(body)
    if inside:
        return Upload(path, content_type, gzip.compress(body, 1, mtime=0))
    if random.random() < 0.05:
        content_type = random.choice(list(kinds().values())).media_types[0]
    return Upload(path, content_type, bytes(body))


def damaged(random: Random, whole: bytes, others: Sequence[bytes]) -> bytearray:
    """A file with one to three mutations. It may be spliced with one of the others."""
    data = bytearray(whole)
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        random.choice(_DAMAGES)(random, data, others)
        del data[BYTES_MAX:]
    return data


def damaged_picture(random: Random, name: str) -> bytes:
    """A damaged picture of this format. In most PNGs the checksums are corrected."""
    wholes = pictures()[name]
    data = damaged(random, random.choice(wholes), wholes)
    if name == "png" and random.random() < 0.7:
        repair_png(data)
    return bytes(data)


def _place(random: Random, data: bytearray) -> int:
    """A random place, more often in the first 64 bytes, where the headers are."""
    return random.randrange(min(len(data), 64) if random.random() < 0.4 else len(data)) if data else 0


def _flip(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    for _ in range(random.randint(1, 8) if data else 0):
        data[_place(random, data)] ^= 1 << random.randrange(8)


def _cut(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _place(random, data)
    del data[start : len(data) if random.random() < 0.5 else start + random.randint(1, 600)]


def _splice(random: Random, data: bytearray, others: Sequence[bytes]) -> None:
    other = random.choice(others)
    data[_place(random, data) :] = other[random.randrange(len(other)) :]


def _extreme(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    width = random.choice((1, 2, 4, 8))
    size = random.choice(SIZES) & ((1 << 8 * width) - 1)
    field = random.choice((size.to_bytes(width, "big"), size.to_bytes(width, "little"), random.choice(_OCTAL)))
    at = _place(random, data)
    if len(field) == len(_OCTAL[0]) and random.random() < 0.8:
        at = random.randrange(0, len(data) + 1, _TAR_BLOCK) + random.choice((100, 108, 124, 136, 329))
    data[at : at + len(field)] = field


def _repeat(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    start = _place(random, data)
    section = data[start : start + random.choice((1, 12, 64, _TAR_BLOCK, 4096))]
    data[start:start] = section * random.choice((1, 2, 30))


def _noise(random: Random, data: bytearray, _: Sequence[bytes]) -> None:
    at = _place(random, data)
    data[at : at + random.choice((0, 16))] = random.randbytes(random.randint(1, 40))


_DAMAGES = (_flip, _cut, _splice, _extreme, _extreme, _repeat, _noise)


def repair_png(data: bytearray) -> None:
    """Correct the checksums of the chunks."""
    at = 8
    while at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4], "big")
        if end + 4 > len(data):
            return
        data[end : end + 4] = struct.pack(">I", zlib.crc32(data[at + 4 : end]))
        at = end + 4


def _repair_tar(data: bytearray) -> None:
    for at in range(0, len(data) - _TAR_BLOCK + 1, _TAR_BLOCK):
        if data[at + 257 : at + 262] == b"ustar":
            data[at + 148 : at + 156] = b" " * 8
            data[at + 148 : at + 156] = b"%06o\0 " % sum(data[at : at + _TAR_BLOCK])


def _multipart(files: dict[str, bytes], *, field: str = "files") -> bytes:
    parts = (
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n".encode()
        + body
        + b"\r\n"
        for name, body in files.items()
    )
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


def _with_fields(files: dict[str, bytes]) -> bytes:
    field = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="comment"\r\n\r\nhello\r\n'.encode()
    return field * 3 + _multipart(files)


def _tar_of_all_sorts() -> bytes:
    """A tar with members that are not files, unusual names, and extended headers."""
    file = BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "x" * 600}) as archive:
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            member = tarfile.TarInfo(f"entry{kind!r}")
            member.type, member.linkname = kind, "../../etc/passwd"
            archive.addfile(member)
        for name in ("../up.png", "/root.png", "same.png", "same.png", "x" * 300):
            member = tarfile.TarInfo(name)
            member.size, member.pax_headers = 10, {"SCHILY.xattr.user.x": "y" * 100}
            archive.addfile(member, BytesIO(bytes(10)))
    return file.getvalue()


def _zip64(files: dict[str, bytes]) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    return file.getvalue()
