"""The bytes that travel between API, store and worker: a chunk's images, its results, images kept for a retry."""

import struct
from collections.abc import Iterable, Sequence
from functools import cache
from itertools import chain
from typing import Any

from jobs.item_codes import ItemCode
from jobs.records import Failure, Outcome, Prediction, Unfamiliar

_UNFAMILIAR = 0x80  # in an item's number of classes


REFUSED = 0xFFFF_FF00  # + a code: stands for the length of an item that was refused before it was kept


_CODES = list(ItemCode)


def pack_upload(items: Sequence[bytes | ItemCode]) -> bytes:
    """One chunk's images in one string: a length for each as 4 bytes, then their bytes. A code: why one was refused."""
    lengths = (REFUSED + _CODES.index(item) if isinstance(item, ItemCode) else len(item) for item in items)
    kept = (item for item in items if not isinstance(item, ItemCode))
    return b"".join((struct.pack(f"<{len(items)}I", *lengths), *kept))


def unpack_upload(data: bytes, items: int) -> list[memoryview | ItemCode]:
    """The images of a chunk, without copying them."""
    lengths = struct.unpack_from(f"<{items}I", data)
    view, at, images = memoryview(data), 4 * items, list[memoryview | ItemCode]()
    for length in lengths:
        if length >= REFUSED:
            images.append(_CODES[length - REFUSED])
        else:
            images.append(view[at : at + length])
            at += length
    return images


_KEPT = struct.Struct("<HI")


def pack_retained(items: Iterable[tuple[int, bytes | memoryview]]) -> bytes:
    """Failed images of a chunk, kept for a retry: for each its place in the chunk as 2 bytes, length as 4, bytes."""
    return b"".join(part for place, image in items for part in (_KEPT.pack(place, len(image)), image))


def unpack_retained(data: bytes) -> dict[int, memoryview]:
    """The images by their place in the chunk, without copying them."""
    view, at, kept = memoryview(data), 0, dict[int, memoryview]()
    while at < len(view):
        place, length = _KEPT.unpack_from(view, at)
        at += _KEPT.size
        kept[place] = view[at : at + length]
        at += length
    return kept


def pack_outcomes(model_ref: str, outcomes: Iterable[Outcome]) -> bytes:
    """One chunk's results: the model's `name@version`, then for each item a count and its (class, confidence) pairs.

    A count of 0 marks a failure; the byte behind it says which. Codes are appended to `ItemCode`, never reordered. The
    highest bit of a count marks an `Unfamiliar` image.
    """
    ref = model_ref.encode()
    parts = [bytes((len(ref),)), ref]
    for outcome in outcomes:
        if isinstance(outcome, Failure):
            parts.append(bytes((0, _CODES.index(outcome.code))))
        else:
            parts.append(bytes((len(outcome) | (_UNFAMILIAR if isinstance(outcome, Unfamiliar) else 0),)))
            parts.append(_flat(len(outcome)).pack(*chain.from_iterable(outcome)))
    return b"".join(parts)


class UnfamiliarFlat(tuple[Any, ...]):
    """As `Unfamiliar`, in one row."""

    __slots__ = ()


def unpack_flat(data: bytes) -> tuple[str, list[tuple[Any, ...] | Failure]]:
    """The model's `name@version`, and for each item class, confidence, class, confidence … or why it failed."""
    at = 1 + data[0]
    ref, items = data[1:at].decode(), list[tuple[Any, ...] | Failure]()
    while at < len(data):
        count = data[at]
        if count == 0:
            items.append(Failure(_CODES[data[at + 1]]))
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
