"""TIFFs made by hand: with odd tags beside those of the picture, and BigTIFFs."""

import struct
from collections.abc import Iterator

from PIL import Image

Entry = tuple[int, int, int, bytes]
"""Tag, type, count, and what stands in the place of a value or offset."""

_ASCII, _SHORT, _LONG, _RATIONAL, _UNDEFINED, _SIGNED_RATIONAL, _LONG8 = 2, 3, 4, 5, 7, 10, 16
_EXIF, _GPS, _INTEROPERABILITY, _SUB_DIRECTORIES = 34665, 34853, 40965, 330
_ORIENTATION, _X_RESOLUTION, _MAKE, _XMP, _IPTC, _PHOTOSHOP, _ICC = 274, 282, 271, 700, 33723, 34377, 34675
_BITS_AT = 16
_PIXELS_AT = _BITS_AT + 8


def tiff(image: Image.Image, *more: Entry, big: bool = False, order: str = "<", behind: bytes = b"") -> bytes:
    """An uncompressed TIFF of one strip in three colours, with more tags, and these bytes behind its pixels."""
    width, height = image.size
    pixels = image.convert("RGB").tobytes()
    directory = _PIXELS_AT + len(pixels) + len(behind)
    bits = struct.pack(order + "HHH", 8, 8, 8)
    bits_entry = (258, _SHORT, 3, bits if big else struct.pack(order + "I", _BITS_AT))
    values = {256: width, 257: height, 259: 1, 262: 2, 273: _PIXELS_AT, 277: 3, 278: height, 279: len(pixels)}
    entries = sorted(
        (*((tag, _LONG, 1, struct.pack(order + "I", it)) for tag, it in values.items()), bits_entry, *more)
    )
    count, offset, entry = ("Q", "Q", "HHQ8s") if big else ("H", "I", "HHI4s")
    magic = b"II" if order == "<" else b"MM"
    head = struct.pack(order + ("HHHQ" if big else "HI"), *((43, 8, 0, directory) if big else (42, directory)))
    return b"".join(
        (
            (magic + head).ljust(_BITS_AT, b"\0"), bits.ljust(8, b"\0"), pixels, behind,
            struct.pack(order + count, len(entries)), *(struct.pack(order + entry, *it) for it in entries),
            struct.pack(order + offset, 0),
        )
    )  # fmt: skip


def orientation(value: int, order: str = "<") -> Entry:
    return _ORIENTATION, _SHORT, 1, struct.pack(order + "HH", value, 0)


def negative_resolution(at: int = _PIXELS_AT, order: str = "<") -> Entry:
    """A rational of the wrong sign, of which the value stands there."""
    return _X_RESOLUTION, _SIGNED_RATIONAL, 1, struct.pack(order + "I", at)


def handmade_tiffs(image: Image.Image) -> Iterator[tuple[str, bytes]]:
    """All show the picture as it is, uncompressed."""
    pixels_end = _PIXELS_AT + 3 * image.width * image.height
    negative = struct.pack("<ii", -72, 1)
    yield "big-endian", tiff(image, order=">")
    yield "BigTIFF", tiff(image, big=True)
    entries: dict[str, Entry] = {
        "signed resolution": negative_resolution(pixels_end),
        "rational make": (_MAKE, _RATIONAL, 1, struct.pack("<I", pixels_end)),
        "a value far outside": (_X_RESOLUTION, _RATIONAL, 1, b"\xff\xff\xff\x7f"),
        "a count of 4 billion": (_MAKE, _ASCII, 0xFFFF_FFFF, struct.pack("<I", pixels_end)),
        "an unknown type": (_MAKE, 99, 1, struct.pack("<I", pixels_end)),
        "orientation 9": orientation(9),
        "orientation 0": orientation(0),
        "orientation as text": (_ORIENTATION, _ASCII, 2, b"6\0\0\0"),
        "XMP that is no XML": (_XMP, _UNDEFINED, 300, struct.pack("<I", _PIXELS_AT)),
        "XMP outside the file": (_XMP, _UNDEFINED, 300, b"\xff\xff\xff\x7f"),
        "cut IPTC": (_IPTC, _LONG, 9_000, struct.pack("<I", pixels_end)),
        "cut Photoshop blocks": (_PHOTOSHOP, _UNDEFINED, 30, struct.pack("<I", pixels_end)),
        "an ICC profile outside the file": (_ICC, _UNDEFINED, 3_000, b"\xff\xff\xff\x7f"),
    }
    centimetres, text = (296, _SHORT, 1, b"\3\0\0\0"), (_X_RESOLUTION, _ASCII, 4, b"odd\0")
    yield "a resolution in words", tiff(image, text, (283, _ASCII, 4, b"odd\0"), centimetres)
    many = [(tag, _UNDEFINED, 20_000, struct.pack("<I", _PIXELS_AT)) for tag in range(60_000, 60_009)]
    yield "nine private tags of the same 20 kB", tiff(image, *many)
    for name, entry in entries.items():
        yield name, tiff(image, entry, behind=negative + b"8BIM\x04\x04\0\0\xff\xff")
        if entry[0] != _ORIENTATION:
            yield f"{name}, beside an orientation", tiff(image, entry, orientation(1), behind=negative)
    directories = {"cut": b"\x09\0" + bytes(9), "of 65,535 entries": b"\xff\xff" + bytes(60)}
    odd_entry = struct.pack("<HHII", _MAKE, _SIGNED_RATIONAL, 0xFFFF_FFFF, 0x7FFF_FFFF)
    directories["of odd entries"] = struct.pack("<H", 3) + odd_entry * 3 + b"\xff\xff\xff\xff"
    pointers = {"EXIF": _EXIF, "GPS": _GPS, "interoperability": _INTEROPERABILITY, "a sub-directory": _SUB_DIRECTORIES}
    for what, tag in pointers.items():
        for where, at in {"outside the file": 0x7FFF_FFF0, "in the header": 0, "the picture's": pixels_end}.items():
            yield f"{what} {where}", tiff(image, (tag, _LONG, 1, struct.pack("<I", at)))
        for how, directory in directories.items():
            entry = (tag, _LONG, 1, struct.pack("<I", pixels_end))
            yield f"{what} {how}", tiff(image, entry, orientation(1), behind=directory)
        yield f"{what} as text", tiff(image, (tag, _ASCII, 4, b"odd\0"))
    far = struct.pack("<Q", 1 << 62)
    yield "BigTIFF, EXIF outside the file", tiff(image, (_EXIF, _LONG8, 1, far), big=True)
    yield (
        "BigTIFF, signed resolution",
        tiff(image, (_X_RESOLUTION, _SIGNED_RATIONAL, 1, negative), orientation(1), big=True),
    )
