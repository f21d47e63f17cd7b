"""Reads an image file up to its pixels: size, orientation, and the parts that make up the picture.

All other parts (colour profiles, texts, previews, most of EXIF) are left out before a decoder sees the file: nobody
here uses them, so damage in them must not decide whether whole pixels are classified. Side pictures, such as a camera's
previews behind a JPEG, do not count for any limit.
"""

import re
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from jobs.item_codes import FoundFormat, ItemCode
from worker.inference.images.exif import UPRIGHT, orientation_of
from worker.inference.images.limits import DecodeError, parts_max

Upload = bytes | memoryview


class Picture(NamedTuple):
    """A file that was read up to its pixels."""

    data: Upload
    """The file without the parts that nobody here uses."""
    width: int
    height: int
    """Pixels, as stored: before the picture is turned upright."""
    orientation: int = UPRIGHT
    """EXIF's: 1 to 8."""
    frames: int = 1
    scans: int = 1
    """Passes over all pixels that the decoder makes; of a JPEG with several, it keeps all coefficients meanwhile."""
    components: int = 0
    """Of a JPEG: 1 is gray."""
    lacks_end: bool = False
    """Of a JPEG: whether it has no end marker, which is all that may be missing."""
    pixel_bytes: int = 4
    """That the decoder writes for one pixel, at most."""
    transparent_level: int | None = None
    """Of a gray PNG: the level, as decoded to 8 or 16 bits, that stands for transparent pixels."""


_PNG_PARTS = frozenset((b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"))
_PNG_HEADER = struct.Struct(">I4sIIBB")
_PNG_CHUNK = struct.Struct(">I4s")
_ANCILLARY = 0x20  # in the first letter of a PNG chunk's name
_PNG_CHANNELS = {0: 1, 2: 3}  # as decoded, by the colour type; of all others up to 4


def read_png(upload: Upload) -> Picture:
    if len(upload) < 33:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    length, name, width, height, depth, colour_type = _PNG_HEADER.unpack_from(upload, 8)
    if (length, name) != (13, b"IHDR"):
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    kept, keep_from, at, end = list[Upload](), 0, 8, len(upload)
    orientation, frames, level = UPRIGHT, 0, None
    has_still = False  # whether the picture is no frame of the animation behind it
    for _ in range(parts_max(upload)):
        if at + 8 > end:
            break
        length, name = _PNG_CHUNK.unpack_from(upload, at)
        after = at + 12 + length
        if name not in _PNG_PARTS and name[0] & _ANCILLARY:  # an unknown part that is not ancillary is the decoder's
            kept.append(upload[keep_from:at])
            keep_from = min(after, end)
            if name == b"eXIf":
                orientation = orientation_of(bytes(upload[at + 8 : after - 4]))
            frames += name == b"fcTL" and not has_still
        if name == b"tRNS" and length == 2 and colour_type == 0:
            scale = 255 // ((1 << depth) - 1) if depth < 8 else 1
            level = int.from_bytes(upload[at + 8 : at + 10], "big") * scale
        has_still = has_still or (name == b"IDAT" and not frames)
        at = after
        if name == b"IEND":
            end = min(end, after)
    else:
        raise DecodeError(ItemCode.TOO_MANY_PARTS)
    data = _joined(kept, upload[keep_from:end]) if kept else upload
    pixel_bytes = _PNG_CHANNELS.get(colour_type, 4) * (2 if depth == 16 else 1)
    return Picture(data, width, height, orientation, max(1, frames), pixel_bytes=pixel_bytes, transparent_level=level)


_SOI, _EOI, _SOS, _TEM, _COM = 0xD8, 0xD9, 0xDA, 0x01, 0xFE
_NO_LENGTH = frozenset((_TEM, _SOI, *range(0xD0, 0xD8)))
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the segments that begin a picture
_DECODABLE_FRAMES = frozenset((0xC0, 0xC1, 0xC2, 0xC9, 0xCA))  # DCT; not lossless, not hierarchical
_APPLICATION = range(0xE0, 0xF0)
_APP0_JFIF, _APP1_EXIF, _APP14_ADOBE = 0xE0, 0xE1, 0xEE
_MARKER_AFTER_DATA = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]", re.DOTALL)


def read_jpeg(upload: Upload) -> Picture:
    kept, keep_from, end, scans = list[Upload](), 0, 0, 0
    frame: tuple[int, int, int, int] | None = None
    orientation = UPRIGHT
    for marker, at, after in _jpeg_segments(upload):
        if marker in _APPLICATION or marker == _COM:
            body = bytes(upload[at + 4 : after])
            if marker == _APP1_EXIF and body.startswith(b"Exif\0") and orientation == UPRIGHT:
                orientation = orientation_of(body[6:])
            if not _says_which_colours(marker, body):
                kept.append(upload[keep_from:at])
                keep_from = after
        elif marker in _FRAMES and frame is None:
            frame = _jpeg_frame(marker, upload[at + 4 : after])
        scans += marker == _SOS
        end = after if marker == _EOI else 0
    if frame is None or not scans:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    whole = not kept and end == len(upload)
    data = upload if whole else _joined(kept, upload[keep_from : end or len(upload)])
    _, height, width, components = frame
    return Picture(data, width, height, orientation, scans=scans, components=components, lacks_end=not end)


def _jpeg_segments(upload: Upload) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each segment with a length, and of the end marker. Pixels between them are skipped."""
    at = 2
    for _ in range(parts_max(upload)):
        found = _MARKER_AFTER_DATA.search(upload, at)
        if found is None:
            return
        at = found.start()
        marker = upload[at + 1]
        if marker == _EOI:
            yield marker, at, at + 2
            return
        after = at + 2
        if marker not in _NO_LENGTH:
            after += int.from_bytes(upload[at + 2 : at + 4], "big")
            if after > len(upload):
                return
            yield marker, at, after
        at = after
    raise DecodeError(ItemCode.TOO_MANY_PARTS)


def _jpeg_frame(marker: int, body: Upload) -> tuple[int, int, int, int]:
    """Depth, height, width, components."""
    if len(body) < 6:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    frame: tuple[int, int, int, int] = struct.unpack_from(">BHHB", body)
    if marker not in _DECODABLE_FRAMES:
        raise DecodeError(ItemCode.UNSUPPORTED_FORMAT, FoundFormat.JPEG_LOSSLESS)
    if frame[0] != 8:
        raise DecodeError(ItemCode.UNSUPPORTED_FORMAT, FoundFormat.JPEG_12_BIT)
    return frame


def _says_which_colours(marker: int, segment: bytes) -> bool:
    """Whether the decoder needs this segment to know what the components of a JPEG are."""
    if marker == _APP0_JFIF:
        return segment.startswith(b"JFIF\0") and len(segment) >= 14
    return marker == _APP14_ADOBE and segment.startswith(b"Adobe") and len(segment) >= 12


_WEBP_PARTS = frozenset((b"VP8 ", b"VP8L", b"ALPH"))
_WEBP_CHUNK = struct.Struct("<4sI")
_HAS_ALPHA = 0x10
_LOSSY_START, _LOSSLESS_START = b"\x9d\x01\x2a", 0x2F


def read_webp(upload: Upload) -> Picture:
    """The picture's size is that of its canvas, if it has one."""
    parts, at, frames, orientation = list[bytes](), 12, 0, UPRIGHT
    canvas: tuple[int, int] | None = None
    for _ in range(parts_max(upload)):
        if at + 8 > len(upload):
            break
        name, length = _WEBP_CHUNK.unpack_from(upload, at)
        body = bytes(upload[at + 8 : at + 8 + length])
        if name == b"VP8X" and len(body) >= 10:
            canvas = 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
            parts.append(_webp_chunk(name, bytes((body[0] & _HAS_ALPHA,)) + body[1:]))
        elif name in _WEBP_PARTS:
            canvas = canvas or _webp_size(name, body)
            parts.append(_webp_chunk(name, body, length))
        elif name == b"EXIF":
            orientation = orientation_of(body.removeprefix(b"Exif\0\0"))
        frames += name == b"ANMF"
        at += 8 + length + length % 2
    else:
        raise DecodeError(ItemCode.TOO_MANY_PARTS)
    if canvas is None:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    data = upload if frames else _joined([], _webp_chunk(b"RIFF", b"WEBP" + b"".join(parts)))
    return Picture(data, *canvas, orientation, max(1, frames))


def _webp_size(name: bytes, body: bytes) -> tuple[int, int] | None:
    if name == b"VP8 " and body[3:6] == _LOSSY_START and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    if name == b"VP8L" and len(body) >= 5 and body[0] == _LOSSLESS_START:
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return None


def _webp_chunk(name: bytes, body: bytes, length: int | None = None) -> bytes:
    return _WEBP_CHUNK.pack(name, len(body) if length is None else length) + body + bytes(len(body) % 2)


def read_bmp(upload: Upload) -> Picture:
    if len(upload) < 26:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    (header_bytes,) = struct.unpack_from("<I", upload, 14)
    width, height = struct.unpack_from("<HH" if header_bytes == 12 else "<ii", upload, 18)
    if width <= 0:  # it would make the pixels few, however many the decoder finds
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    return Picture(upload, width, abs(height))  # a negative height says that the first row is the top one


_GIF_BLOCK = re.compile(rb"[!,;]")
_GIF_EXTENSION, _GIF_FRAME, _GIF_END, _GRAPHIC_CONTROL = b"!", b",", b";", 0xF9


def read_gif(upload: Upload) -> Picture:
    """Of the file, the first frame is kept, with its graphic control, which says what is transparent."""
    if len(upload) < 13:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    width, height = struct.unpack_from("<HH", upload, 6)
    at = 13 + _gif_colours_bytes(upload[10])
    kept, frames, parts_left = [upload[:at]], 0, parts_max(upload)
    while (found := _GIF_BLOCK.search(upload, at)) is not None and found[0] != _GIF_END:
        start, at = found.start(), found.end()
        is_frame = found[0] == _GIF_FRAME
        control = not is_frame and bytes(upload[at : at + 1]) == bytes((_GRAPHIC_CONTROL,))
        if is_frame:
            at += 10 + (_gif_colours_bytes(upload[at + 8]) if at + 8 < len(upload) else 0)
        else:
            at += 1
        at, parts_left = _after_gif_blocks(upload, at, parts_left)
        if not frames and (is_frame or control):
            kept.append(upload[start:at])
        frames += is_frame
    if not frames:
        raise DecodeError(ItemCode.CORRUPT_IMAGE)
    return Picture(_joined(kept, _GIF_END), width, height, frames=frames)


def _gif_colours_bytes(flags: int) -> int:
    """The size of the colour table that these flags announce."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _after_gif_blocks(upload: Upload, at: int, parts_left: int) -> tuple[int, int]:
    """The end of a chain of data blocks, or of the file in it, and how many more parts the file may have."""
    end = len(upload)
    while at < end:
        parts_left -= 1
        if parts_left < 0:
            raise DecodeError(ItemCode.TOO_MANY_PARTS)
        length = upload[at]
        at += 1 + length
        if not length:
            break
    return min(at, end), parts_left


READERS: dict[str, Callable[[Upload], Picture]] = {
    "image/png": read_png,
    "image/jpeg": read_jpeg,
    "image/webp": read_webp,
    "image/bmp": read_bmp,
    "image/gif": read_gif,
}
"""By media type. Each raises DecodeError if it finds no picture."""


def _joined(parts: list[Upload], *more: Upload) -> bytes:
    return b"".join((*parts, *more))
