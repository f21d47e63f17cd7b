"""Reads the first directory of a TIFF: its orientation, and the tags without which its pixels cannot be decoded.

All other tags are left out before a decoder sees the file (see `container.py`): Pillow would follow each of them, and
the directories of EXIF and GPS that they point to, and write some of them anew.
"""

import struct
from typing import NamedTuple

from jobs.item_codes import FoundFormat, ItemCode
from worker.inference.images.exif import ORIENTATION_TAG, UPRIGHT
from worker.inference.images.limits import DecodeError, parts_max

# Size, bits, compression, colours, strips, fax options, predictor, palette, tiles, inks, extra samples, number format,
# and what JPEG in a TIFF, new and old, needs.
_NEEDED = {256, 257, 258, 259, 262, 266, 273, 277, 278, 279, 284, 292, 293, 317, 320, 322, 323, 324, 325, 332, 334, 338}
_NEEDED |= {339, 347, *range(512, 522), 529, 530, 531, 532}
_SHORT, _LONG = 3, 4


class _Layout(NamedTuple):
    """Where a file has its first directory, and how its entries are written."""

    first_at: int
    offset_format: str
    count_format: str
    entry_bytes: int


_CLASSIC, _BIG = _Layout(4, "I", "H", 12), _Layout(8, "Q", "Q", 20)


def first_page(upload: bytes | memoryview) -> tuple[bytes, int]:
    """The file with the needed tags of its first directory alone, at their place, and its orientation.

    Raises:
        DecodeError: it has too many entries, or is a BigTIFF that Pillow cannot read.
        struct.error: the file ends before its directory.
    """
    order = "<" if upload[:2] == b"II" else ">"
    layout = _BIG if 43 in bytes(upload[2:4]) else _CLASSIC
    if layout is _BIG and order == ">":
        raise DecodeError(ItemCode.UNSUPPORTED_FORMAT, FoundFormat.BIG_TIFF_BIG_ENDIAN)  # Pillow takes it for a TIFF
    (directory,) = struct.unpack_from(order + layout.offset_format, upload, layout.first_at)
    (entries,) = struct.unpack_from(order + layout.count_format, upload, directory)
    first, size = directory + struct.calcsize(layout.count_format), layout.entry_bytes
    entries = min(entries, (len(upload) - first) // size)
    if entries > parts_max(upload):
        raise DecodeError(ItemCode.TOO_MANY_PARTS)
    needed, orientation = dict[int, bytes](), UPRIGHT
    for at in range(first, first + entries * size, size):
        tag, kind = struct.unpack_from(order + "HH", upload, at)
        if tag in _NEEDED:
            needed.setdefault(tag, bytes(upload[at : at + size]))  # the first, as in libtiff
        elif tag == ORIENTATION_TAG and kind in (_SHORT, _LONG):
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), upload, at + size // 2 + 2)
            orientation = value if 1 <= value <= 8 else UPRIGHT
    no_more = bytes(struct.calcsize(layout.offset_format))
    kept = struct.pack(order + layout.count_format, len(needed)) + b"".join(needed.values()) + no_more
    return b"".join((upload[:directory], kept, upload[directory + len(kept) :])), orientation
