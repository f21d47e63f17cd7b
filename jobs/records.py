"""Jobs, items and chunk references: the types that the API, the store and the workers share."""

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from jobs.item_codes import ARCHIVES, ITEM_DETAIL, FoundFormat, ItemCode, taken_formats

CHUNK_ITEMS_MAX = 64
CHUNK_BYTES_MAX = 4 << 20  # a larger item is a chunk of its own
REFERENCES_MAX = 8  # URLs of one chunk: each becomes an image of up to the largest size
TOP_K_MAX = 100
UNFAMILIAR = "unfamiliar"  # the warning in a result
BY_REFERENCE = 0x8000  # in the number of items of a chunk reference
SPOOLED = 0x4000  # there, too


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
    """Why one image could not be classified."""

    code: ItemCode
    found: FoundFormat | None = None
    """Which format it is, if the code is `unsupported_format` and that is known."""
    taken: frozenset[FoundFormat] = frozenset()
    """If `found` is set: which of `OPTIONAL_FORMATS` the worker decodes."""

    @property
    def detail(self) -> str:
        if self.found is None:
            return ITEM_DETAIL[self.code]
        if self.found in ARCHIVES:
            return f"The upload is a {self.found}. Send an archive as the body of a request of its own."
        return f"The upload's format is not supported here: {self.found}. Send {taken_formats(self.taken)}."


class Unfamiliar(list[Prediction]):
    """The predictions for an image that is unlike the model's training data."""


Outcome = list[Prediction] | Failure
"""The predictions for one image, best first, or why it failed."""


class ChunkRef(NamedTuple):
    """The name of a chunk in the store's lists and sets; 26 bytes when packed."""

    job_id: bytes
    chunk: int
    items: int
    upload_bytes: int
    by_reference: bool = False
    """Whether its upload holds URLs, which an outbound worker fetches first."""
    spooled: bool = False
    """Whether its upload is a file outside Redis; see `jobs/spool/`."""

    def pack(self) -> bytes:
        items = self.items | (BY_REFERENCE if self.by_reference else 0) | (SPOOLED if self.spooled else 0)
        return self.job_id + struct.pack(">IHI", self.chunk, items, self.upload_bytes)

    @classmethod
    def unpack(cls, data: bytes) -> "ChunkRef":
        chunk, items, upload_bytes = struct.unpack(">IHI", data[16:])
        flags = bool(items & BY_REFERENCE), bool(items & SPOOLED)
        return cls(data[:16], chunk, items & ~(BY_REFERENCE | SPOOLED), upload_bytes, *flags)


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
    """The current state of one job. Times are Redis time in milliseconds since 1970."""

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
    failure_code: ItemCode | None
    """Why the items without a result failed, if the whole job failed."""
    started_ms: int | None = None
    """When a worker claimed its first chunk."""
    skipped: int = 0
    """Archive entries that were skipped because they are not content, such as `.DS_Store`."""
    webhook_url: str | None = None
    retry_of: bytes | None = None
    single_item: Item | None = None
    """The item, if the job has exactly one."""

    @property
    def unfinished(self) -> int:
        """Items without a result."""
        return self.total - self.succeeded - self.failed

    @property
    def pending(self) -> int:
        """Items that may still get a result."""
        return 0 if self.state is JobState.CANCELED else self.unfinished

    @property
    def canceled(self) -> int:
        """Items that had no result when the job was canceled."""
        return self.unfinished if self.state is JobState.CANCELED else 0
