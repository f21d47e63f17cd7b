"""Binary formats of a chunk: its images, its results, and the failed images retained for a retry."""

import struct
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from jobs.item_codes import OPTIONAL_FORMATS, FoundFormat, ItemCode
from jobs.records import Failure, Outcome, Prediction, Unfamiliar

_UNFAMILIAR = 0x80  # in an item's number of classes


REFUSED = 0xFFFF_FF00  # + a code: in place of an item's length: the API refused the item


_CODES = list(ItemCode)
_FOUND = list(FoundFormat)
_FOUND_FROM_TOP = 255  # a format stands in place of a code, counted down from here: both lists may grow
_FOUND_MAX = 24  # formats; behind as many numbers they stand again, for each set of formats that are decoded
_TAKEN = [
    frozenset(it for bit, it in enumerate(OPTIONAL_FORMATS) if number >> bit & 1)
    for number in range(1 << len(OPTIONAL_FORMATS))
]
assert len(_FOUND) <= _FOUND_MAX
assert len(_CODES) <= _FOUND_FROM_TOP + 1 - _FOUND_MAX * len(_TAKEN)


def pack_upload(items: Sequence[bytes | ItemCode]) -> bytes:
    """One chunk's images in one string: a 4-byte length each, then the bytes. A code stands for a refused image."""
    lengths = (REFUSED + _CODES.index(item) if isinstance(item, ItemCode) else len(item) for item in items)
    images = (item for item in items if not isinstance(item, ItemCode))
    return b"".join((struct.pack(f"<{len(items)}I", *lengths), *images))


def unpack_upload(data: bytes, items: int) -> list[memoryview | ItemCode]:
    """The images of a chunk, without copying them."""
    lengths = struct.unpack_from(f"<{items}I", data)
    view, at, images = memoryview(data), 4 * items, list[memoryview | ItemCode]()
    for length in lengths:
        if length >= REFUSED:
            images.append(_known(length - REFUSED))
        else:
            images.append(view[at : at + length])
            at += length
    return images


_RETAINED = struct.Struct("<HI")


def pack_retained(items: Iterable[tuple[int, bytes | memoryview]]) -> bytes:
    """Failed images of a chunk, for a retry: for each its place in the chunk (2 bytes), its length (4), its bytes."""
    return b"".join(part for place, image in items for part in (_RETAINED.pack(place, len(image)), image))


def unpack_retained(data: bytes) -> dict[int, memoryview]:
    """The images by their place in the chunk, without copying them."""
    view, at, images = memoryview(data), 0, dict[int, memoryview]()
    while at < len(view):
        place, length = _RETAINED.unpack_from(view, at)
        at += _RETAINED.size
        images[place] = view[at : at + length]
        at += length
    return images


def pack_outcomes(model_ref: str, outcomes: Iterable[Outcome]) -> bytes:
    """One chunk's results: the model's `name@version`, then for each item a count and its (class, confidence) pairs.

    A count of 0 marks a failure; the byte behind it says which. Codes are appended to `ItemCode` and `FoundFormat`,
    never reordered. The highest bit of a count marks an `Unfamiliar` image.
    """
    ref = model_ref.encode()
    parts = [bytes((len(ref),)), ref]
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            parts.append(bytes((0, _failure_byte(outcome))))
        else:
            parts.append(bytes((len(outcome) | (_UNFAMILIAR if isinstance(outcome, Unfamiliar) else 0),)))
            parts.append(_flat(len(outcome)).pack(*chain.from_iterable(outcome)))
    return b"".join(parts)


def result_bytes(top_k: int, classes: int) -> int:
    """The memory that the record budget sets aside for one item's result; allocators round up by a fifth at most."""
    return int(1.2 * (1 + _flat(min(top_k, classes)).size)) + 1


def _failure_byte(failure: Failure) -> int:
    if failure.found is not None:
        return _FOUND_FROM_TOP - _FOUND.index(failure.found) - _FOUND_MAX * _TAKEN.index(failure.taken)
    return _CODES.index(failure.code)


def _known(code: int) -> ItemCode:
    """The code at this position; a stand-in for one of a later release, so that no other item of its chunk fails."""
    return _CODES[code] if code < len(_CODES) else ItemCode.UNSUPPORTED_FORMAT


@cache
def _failure(byte: int) -> Failure:
    taken, found = divmod(_FOUND_FROM_TOP - byte, _FOUND_MAX)
    if byte < len(_CODES) or found >= len(_FOUND) or taken >= len(_TAKEN):
        return Failure(_known(byte))
    return Failure(ItemCode.UNSUPPORTED_FORMAT, _FOUND[found], _TAKEN[taken])


class UnfamiliarFlat(tuple[Any, ...]):
    """As `Unfamiliar`, for `unpack_flat`."""

    __slots__ = ()


def unpack_flat(data: bytes) -> tuple[str, list[tuple[Any, ...] | Failure]]:
    """The model's `name@version`, and for each item (class, confidence, class, confidence, …) or its failure."""
    at = 1 + data[0]
    ref, items = data[1:at].decode(), list[tuple[Any, ...] | Failure]()
    while at < len(data):
        count = data[at]
        if count == 0:
            items.append(_failure(data[at + 1]))
            at += 2
        else:
            pairs = _flat(count & ~_UNFAMILIAR)
            row = pairs.unpack_from(data, at + 1)
            items.append(UnfamiliarFlat(row) if count & _UNFAMILIAR else row)
            at += 1 + pairs.size
    return ref, items


@cache
def _flat(count: int) -> struct.Struct:
    return struct.Struct("<" + "Hf" * count)


def unpack_outcomes(data: bytes) -> tuple[str, list[Outcome]]:
    """The model's `name@version` and the chunk's outcomes in order."""
    ref, items = unpack_flat(data)
    return ref, [it if isinstance(it, Failure) else _predictions(it) for it in items]


def _predictions(flat: tuple[Any, ...]) -> list[Prediction]:
    kind = Unfamiliar if isinstance(flat, UnfamiliarFlat) else list
    return kind(map(Prediction, flat[::2], flat[1::2]))
