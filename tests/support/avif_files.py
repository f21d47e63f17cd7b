"""AVIFs of several pictures, which no encoder here writes."""

import struct
from collections.abc import Iterator

from PIL import Image

from tests.support.pictures import encode

_ALL_BRANDS = b"avif" + bytes(4) + b"avifmif1miaf"
_ESSENTIAL = 0x80


def avif_of(*images: Image.Image, primary: int = 0, thumbnails: bool = False) -> bytes:
    """One AVIF of these pictures, each an item. With `thumbnails`, the others are those of the primary one."""
    wholes = [encode(image, "AVIF") for image in images]
    coded = [dict(_boxes(whole))[b"mdat"] for whole in wholes]
    properties = [list(_boxes(_inside(whole, b"iprp", b"ipco"))) for whole in wholes]
    numbers, used = range(1, 1 + len(wholes)), 0
    associations = b""
    for number, of_item in zip(numbers, properties, strict=True):
        indices = bytes((_ESSENTIAL if name == b"av1C" else 0) | used + at for at, (name, _) in enumerate(of_item, 1))
        associations += struct.pack(">HB", number, len(indices)) + indices
        used += len(of_item)
    others = b"".join(struct.pack(">HHH", number, 1, 1 + primary) for number in numbers if number != 1 + primary)
    references = b"".join(_box(b"thmb", others[at : at + 6]) for at in range(0, len(others), 6))

    def head(data_at: int) -> bytes:
        places = b""
        for number, data in zip(numbers, coded, strict=True):
            places += struct.pack(">HHHII", number, 0, 1, data_at, len(data))
            data_at += len(data)
        entries = b"".join(_box(b"infe", b"\2\0\0\0" + struct.pack(">HH", it, 0) + b"av01\0") for it in numbers)
        meta = (
            _box(b"hdlr", bytes(8) + b"pict" + bytes(13))
            + _box(b"pitm", bytes(4) + struct.pack(">H", 1 + primary))
            + _box(b"iloc", bytes(4) + b"\x44\0" + struct.pack(">H", len(coded)) + places)
            + _box(b"iinf", bytes(4) + struct.pack(">H", len(coded)) + entries)
            + (_box(b"iref", bytes(4) + references) if thumbnails else b"")
            + _box(
                b"iprp",
                _box(b"ipco", b"".join(_box(name, body) for of_item in properties for name, body in of_item))
                + _box(b"ipma", bytes(4) + struct.pack(">I", len(coded)) + associations),
            )
        )
        return _box(b"ftyp", _ALL_BRANDS) + _box(b"meta", bytes(4) + meta)

    return head(len(head(0)) + 8) + _box(b"mdat", b"".join(coded))


def _box(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(body), name) + body


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at < len(data):
        length, name = struct.unpack_from(">I4s", data, at)
        yield name, data[at + 8 : at + length]
        at += length


def _inside(whole: bytes, *path: bytes) -> bytes:
    """The body of a box in the box `meta`."""
    body = dict(_boxes(whole))[b"meta"][4:]
    for name in path:
        body = dict(_boxes(body))[name]
    return body
