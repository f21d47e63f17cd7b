"""A job on its way into the store: its chunk, its options, and what it is once it was accepted."""

from dataclasses import dataclass

import orjson

from jobs.item_codes import ItemCode
from jobs.records import Item, ItemState, Job, JobState, Lane
from jobs.spool.names import Pointer
from jobs.store.for_api.item_quota import UNLIMITED, ItemQuota
from jobs.store.for_api.upload_spool import UploadSpool


@dataclass
class Chunk:
    """Consecutive images of a submission, before they are stored."""

    names: list[str | None]
    upload_bytes: int
    data: bytes | None
    """Packed upload bytes, or None once `Submitter.write_upload` has written them; the pointer of a spooled chunk."""
    by_reference: bool = False
    """Whether the items are URLs, which an outbound worker fetches first."""
    only_refused: ItemCode | None = None
    """Why the image was refused, if the chunk has only one."""
    pointer: Pointer | None = None
    """To the file of the spool that has its bytes."""

    @property
    def packed_names(self) -> bytes:
        """The names as they are stored."""
        return b"" if self.names == [None] else orjson.dumps(self.names)

    def belongs_in(self, spool: UploadSpool) -> bool:
        """Whether its bytes are to lie in the spool, and do not yet."""
        return spool.takes(self.upload_bytes) and self.pointer is None and not self.by_reference

    async def move_to(self, spool: UploadSpool, job_id: bytes) -> None:
        """Write its bytes to the spool, and take a pointer in their place. Raises QueueFull, StoreUnavailable."""
        assert self.data is not None
        self.pointer = await spool.write(job_id, self.data)
        self.data = self.pointer.pack()


@dataclass(slots=True)
class Submission:
    """A job that is not accepted yet. It has one chunk, or none if it is to become an open job."""

    id: bytes
    owner: str
    model: str
    lane: Lane
    top_k: int
    chunk: Chunk | None = None
    key: bytes = b""
    """Digest of the Idempotency-Key."""
    fingerprint: bytes = b""
    """Digest of the options and the content; for an open job it is passed to `OpenJobParts.seal`."""
    webhook_url: str = ""
    retry_of: bytes = b""
    quota: ItemQuota = UNLIMITED
    """That of the API key."""
    result_bytes: int = 0
    """To set aside in the record budget for the result of each item."""
    reserved_bytes: int = 0
    """Of the upload budget, which whoever submits it has reserved until the store has replied."""


@dataclass(frozen=True, slots=True)
class ExistingJob:
    """The job that an Idempotency-Key made before."""

    job_id: bytes
    fingerprint: bytes


def accepted_job(submission: Submission, accepted_ms: int) -> Job:
    """The job of a submission that the store accepted just now, without reading it back."""
    names = [] if submission.chunk is None else submission.chunk.names
    return Job(
        id=submission.id,
        owner=submission.owner,
        model=submission.model,
        lane=submission.lane,
        state=JobState.OPEN if submission.chunk is None else JobState.QUEUED,
        top_k=submission.top_k,
        accepted_ms=accepted_ms,
        ended_ms=None,
        total=len(names),
        succeeded=0,
        failed=0,
        chunks=0 if submission.chunk is None else 1,
        failure_code=None,
        webhook_url=submission.webhook_url or None,
        retry_of=submission.retry_of or None,
        single_item=Item(0, names[0], ItemState.PENDING, None, None) if len(names) == 1 else None,
    )
