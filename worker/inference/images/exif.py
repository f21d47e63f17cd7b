"""The one EXIF tag that is used: how a picture is to be turned."""

import struct

UPRIGHT = 1
ORIENTATION_TAG, _SHORT, _LONG = 0x0112, 3, 4
_ENTRY_BYTES = 12


def orientation_of(exif: bytes) -> int:
    """The orientation (1 to 8) in EXIF data, which starts with its TIFF header. Whatever else is there has no say."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None or len(exif) < 8:
        return UPRIGHT
    (directory,) = struct.unpack_from(order + "I", exif, 4)
    if directory + 2 > len(exif):
        return UPRIGHT
    (entries,) = struct.unpack_from(order + "H", exif, directory)
    first = directory + 2
    for at in range(first, min(first + entries * _ENTRY_BYTES, len(exif) - _ENTRY_BYTES + 1), _ENTRY_BYTES):
        tag, kind = struct.unpack_from(order + "HH", exif, at)
        if tag == ORIENTATION_TAG and kind in (_SHORT, _LONG):
            (value,) = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), exif, at + 8)
            return value if 1 <= value <= 8 else UPRIGHT
    return UPRIGHT
