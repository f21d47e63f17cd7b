"""How large the pictures of an AVIF are as they are coded, which its decoder has to decode.

The file's header states the size to be shown, and libavif scales to that: 28 × 28 may be stated for a picture of 268
megapixels. So the sequence header of each AV1 item is read. ISO 14496-12 and 23008-12 describe files, 5.5 of the
specification of AV1 describes sequence headers.
"""

from collections.abc import Iterator

from jobs.item_codes import ItemCode
from worker.inference.images.limits import DecodeError, parts_max

Upload = bytes | memoryview

_SEQUENCE_HEADER = 1
_SEQUENCE_HEADER_BYTES_MAX = 512


def coded_sizes(upload: Upload) -> list[tuple[int, int]]:
    """Width and height of each coded picture. Raises IndexError if the file is cut in its header, DecodeError."""
    meta = _box(upload, 0, len(upload), b"meta")
    if meta is None:
        return []
    start, end = meta[0] + 4, meta[1]
    idat, iloc, iinf = (_box(upload, start, end, name) for name in (b"idat", b"iloc", b"iinf"))
    if iloc is None or iinf is None:
        return []
    coded = _av1_items(upload, *iinf)
    sizes = list[tuple[int, int]]()
    bytes_left = 2 * len(upload)
    for number, parts in _items(upload, iloc[0], idat[0] if idat else len(upload)):
        if number in coded:
            bytes_left -= sum(map(len, parts))
            if bytes_left < 0:  # the same bytes again and again
                raise DecodeError(ItemCode.CORRUPT_IMAGE)
            sizes += _sequence_sizes(b"".join(parts))
    return sizes


def _boxes(upload: Upload, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Name, start and end of the body of each box."""
    while at + 8 <= end:
        length, name, body = int.from_bytes(upload[at : at + 4], "big"), bytes(upload[at + 4 : at + 8]), at + 8
        if length == 1:
            length, body = int.from_bytes(upload[at + 8 : at + 16], "big"), at + 16
        after = end if length == 0 else at + length
        if after < body:
            return
        yield name, body, min(after, end)
        at = after


def _box(upload: Upload, at: int, end: int, wanted: bytes) -> tuple[int, int] | None:
    return next(((body, after) for name, body, after in _boxes(upload, at, end) if name == wanted), None)


def _av1_items(upload: Upload, at: int, end: int) -> set[int]:
    """The numbers of the items that are coded in AV1."""
    items = set[int]()
    for name, body, _ in _boxes(upload, at + (6 if upload[at] == 0 else 8), end):
        if name == b"infe" and upload[body] >= 2:
            number_bytes = 2 if upload[body] == 2 else 4
            kind = body + 4 + number_bytes + 2
            if upload[kind : kind + 4] == b"av01":
                items.add(int.from_bytes(upload[body + 4 : body + 4 + number_bytes], "big"))
    return items


def _items(upload: Upload, at: int, idat: int) -> Iterator[tuple[int, list[Upload]]]:
    """The number and the bytes, in parts, of each item, by the box `iloc`."""
    version, parts_left = upload[at], parts_max(upload)
    offset_bytes, length_bytes = upload[at + 4] >> 4, upload[at + 4] & 15
    base_bytes, index_bytes = upload[at + 5] >> 4, upload[at + 5] & 15 if version else 0
    at += 6

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(upload[at - size : at], "big")

    wide = 4 if version == 2 else 2
    for _ in range(number(wide)):
        item, method = number(wide), number(2) & 15 if version else 0
        number(2)  # which file it is in
        base = number(base_bytes) + (idat if method == 1 else 0)
        parts, count = list[Upload](), number(2)
        parts_left -= 1 + count
        if parts_left < 0:
            raise DecodeError(ItemCode.TOO_MANY_PARTS)
        for _ in range(count):
            number(index_bytes)
            start = base + number(offset_bytes)
            length = number(length_bytes)
            parts.append(upload[start : start + length if length else len(upload)])
        yield item, parts


def _sequence_sizes(item: bytes) -> Iterator[tuple[int, int]]:
    """Of each sequence header in the data of an item."""
    at = 0
    for _ in range(parts_max(item)):
        if at >= len(item):
            return
        kind, has_extension, has_size = item[at] >> 3 & 15, item[at] & 4, item[at] & 2
        at += 2 if has_extension else 1
        size = len(item) - at
        if has_size:
            size, shift = 0, 0
            while True:
                size |= (item[at] & 0x7F) << shift
                shift += 7
                at += 1
                if item[at - 1] < 0x80 or shift == 56:
                    break
        if kind == _SEQUENCE_HEADER:
            yield _size_of(item[at : at + min(size, _SEQUENCE_HEADER_BYTES_MAX)])
        at += size
    raise DecodeError(ItemCode.TOO_MANY_PARTS)


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """The next so many bits; zeros behind the end."""
        self._left -= count
        shifted = self._bits >> self._left if self._left >= 0 else self._bits << -self._left
        return shifted & (1 << count) - 1


def _size_of(header: bytes) -> tuple[int, int]:
    """The largest size of a frame that such a sequence header allows."""
    bits = _Bits(header)
    bits.take(4)
    is_still = bits.take(1)  # `reduced_still_picture_header`: a frame has the size of its sequence
    if is_still:
        bits.take(5)
    else:
        _skip_operating_points(bits)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    width, height = bits.take(width_bits), bits.take(height_bits)
    if not is_still and (width_bits > width.bit_length() + 1 or height_bits > height.bit_length() + 1):
        return 1 << width_bits, 1 << height_bits  # a frame may have any other size that these bits can state
    return width + 1, height + 1


def _skip_operating_points(bits: _Bits) -> None:
    delay_bits = 0
    if bits.take(1):  # timing
        bits.take(64)
        if bits.take(1):
            zeros = 0
            while not bits.take(1) and zeros < 32:
                zeros += 1
            bits.take(zeros)
        if bits.take(1):  # decoder model
            delay_bits = bits.take(5) + 1
            bits.take(42)
    has_display_delay = bits.take(1)
    for _ in range(bits.take(5) + 1):
        bits.take(12)
        if bits.take(5) > 7:
            bits.take(1)
        if delay_bits and bits.take(1):
            bits.take(2 * delay_bits + 1)
        if has_display_delay and bits.take(1):
            bits.take(4)
