"""Jobs and items as the store keeps them, and the bytes that travel between API, store and worker."""

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from itertools import chain
from typing import Any, NamedTuple

from jobs.errors import ITEM_DETAIL, ItemCode

CHUNK_ITEMS_MAX = 64
CHUNK_BYTES_MAX = 4 << 20  # one larger item is a chunk alone
REFERENCES_MAX = 8  # URLs of one chunk: each becomes an image of up to the largest size
TOP_K_MAX = 100
UNFAMILIAR = "unfamiliar"  # the warning in a result
_UNFAMILIAR = 0x80  # in an item's number of classes
_BY_REFERENCE = 0x8000  # in an entry's number of items
REFUSED = 0xFFFF_FF00  # + a code: stands for the length of an item that was refused before it was kept


class JobState(StrEnum):
    OPEN = "open"
    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"

    @property
    def ended(self) -> bool:
        return self in (JobState.COMPLETED, JobState.FAILED, JobState.CANCELED)


class ItemState(StrEnum):
    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"


class Lane(StrEnum):
    INTERACTIVE = "interactive"
    BULK = "bulk"


STATE_OF_CODE = {
    b"o": JobState.OPEN,
    b"q": JobState.QUEUED,
    b"r": JobState.RUNNING,
    b"c": JobState.COMPLETED,
    b"f": JobState.FAILED,
    b"x": JobState.CANCELED,
}
LANE_CODE = {Lane.INTERACTIVE: b"i", Lane.BULK: b"b"}
LANE_OF_CODE = {code: lane for lane, code in LANE_CODE.items()}


class Prediction(NamedTuple):
    """One class of one image."""

    class_index: int
    confidence: float  # 0 to 1, float32


@dataclass(frozen=True, slots=True)
class Failure:
    """Why one image has no class."""

    code: ItemCode

    @property
    def detail(self) -> str:
        return ITEM_DETAIL[self.code]


class Unfamiliar(list[Prediction]):
    """The classes of an image that looks like nothing the model has learned."""


Outcome = list[Prediction] | Failure
"""The classes of one image, best first, or why it has none."""


class Entry(NamedTuple):
    """A chunk as the queues name it: 26 bytes."""

    job_id: bytes
    chunk: int
    items: int
    upload_bytes: int
    by_reference: bool = False
    """Whether its upload holds URLs, to be fetched first."""

    def pack(self) -> bytes:
        items = self.items | (_BY_REFERENCE if self.by_reference else 0)
        return self.job_id + struct.pack(">IHI", self.chunk, items, self.upload_bytes)

    @classmethod
    def unpack(cls, data: bytes) -> "Entry":
        chunk, items, upload_bytes = struct.unpack(">IHI", data[16:])
        return cls(data[:16], chunk, items & ~_BY_REFERENCE, upload_bytes, bool(items & _BY_REFERENCE))


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


def pack_kept(items: Iterable[tuple[int, bytes | memoryview]]) -> bytes:
    """Failed images of a chunk, kept for a retry: for each its place in the chunk as 2 bytes, length as 4, bytes."""
    return b"".join(part for place, image in items for part in (_KEPT.pack(place, len(image)), image))


def unpack_kept(data: bytes) -> dict[int, memoryview]:
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


@dataclass(frozen=True, slots=True)
class Item:
    """One image of a job."""

    index: int
    name: str | None
    state: ItemState
    outcome: Outcome | None
    model_ref: str | None


@dataclass(slots=True)
class Job:
    """One submission as it stands now. Times are Redis time in milliseconds since 1970."""

    id: bytes
    owner: str
    model: str
    lane: Lane
    state: JobState
    top_k: int
    accepted_ms: int
    ended_ms: int | None
    total: int
    succeeded: int
    failed: int
    chunks: int
    gave_up: ItemCode | None
    """Why items without a result failed, where the whole job was given up."""
    started_ms: int | None = None
    """When a worker took its first chunk."""
    skipped: int = 0
    """Entries of archives that were passed over because they are no content, as `.DS_Store` is."""
    webhook_url: str | None = None
    retry_of: bytes | None = None
    only_item: Item | None = None
    """The item of a job that has one."""

    @property
    def unfinished(self) -> int:
        """Items with no result: pending while the job lives, canceled once it was canceled."""
        return self.total - self.succeeded - self.failed
