"""A fast path for the plainest PNGs (8-bit gray, one data chunk), which skips all of Pillow but its decoder.

For an image of 28 × 28, Pillow's plugin search and parsing of chunks take twice as long as decoding the pixels.
"""

import struct
import zlib
from functools import lru_cache

from PIL import Image, _imaging

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">8sI4sIIBBBBBI")  # signature; IHDR: length, name, width, height, five bytes, CRC
_EIGHT_BITS_OF_GRAY = (8, 0, 0, 0, 0)  # depth, colour type, compression, filter method, interlace
_CHUNK = struct.Struct(">I4s")
_DATA_AT = _HEADER.size + _CHUNK.size
_END = _CHUNK.pack(0, b"IEND") + zlib.crc32(b"IEND").to_bytes(4, "big")
_AFTER_DATA = 4 + len(_END)


def plain_gray_size(upload: bytes | memoryview) -> tuple[int, int] | None:
    """Width and height of a PNG that consists of its header, one chunk of 8-bit gray pixels and its end; else None."""
    if len(upload) < _DATA_AT + _AFTER_DATA or upload[-len(_END) :] != _END:
        return None
    if _CHUNK.unpack_from(upload, _HEADER.size) != (len(upload) - _DATA_AT - _AFTER_DATA, b"IDAT"):
        return None
    return _size(bytes(upload[: _HEADER.size]))


def draw_plain_gray(upload: bytes | memoryview, onto: Image.Image, box: tuple[int, int, int, int]) -> bool:
    """Decode such a PNG into a box of its size (left, top, right, bottom) of an image of mode L.

    Returns False if the PNG is damaged. Rows that a truncated stream lacks keep their old pixels, so the box has to be
    black before.

    This is the decoder that `Image.open` uses. Its public interface, `Image.frombytes`, makes a new image for each
    call, which takes as long as decoding.
    """
    decoder = _imaging.zip_decoder("L", "L")
    decoder.setimage(onto.im, box)
    used, error = decoder.decode(upload[_DATA_AT:-_AFTER_DATA])
    decoder.cleanup()
    return bool(used < 0 and not error)  # used >= 0: the data ended before the image was complete


@lru_cache(maxsize=64)  # images of one upload tend to have few different sizes
def _size(header: bytes) -> tuple[int, int] | None:
    signature, length, name, width, height, *kind, crc = _HEADER.unpack(header)
    plain = (signature, length, name, tuple(kind)) == (_SIGNATURE, 13, b"IHDR", _EIGHT_BITS_OF_GRAY)
    return (width, height) if plain and width and height and zlib.crc32(header[12:29]) == crc else None
