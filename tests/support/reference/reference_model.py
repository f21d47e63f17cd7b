"""A reference model of the store in plain Python: jobs, their chunks, and the leases on them."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import ceil

from jobs.item_codes import ItemCode
from jobs.records import LANE_CODE, ChunkRef, Failure, ItemState, JobState, Lane, Outcome
from jobs.spool.names import Pointer
from jobs.store import keys
from jobs.store.for_api.item_quota import UNLIMITED, ItemQuota
from jobs.store.for_api.open_job_parts import Part
from jobs.store.for_api.submission import Chunk
from jobs.store.for_workers.leases import PAUSED, RETURNED, WORKER_LOST, FailureCounts, Lease
from tests.support.store import MODEL, make_chunk

Shown = tuple[ItemState, Outcome | None]
"""An item's state and outcome."""


def ready(lane: Lane, owner: str) -> str:
    return f"{keys.READY}{MODEL}:{LANE_CODE[lane].decode()}:{owner}"


def suspects(owner: str) -> str:
    return f"{keys.READY}{MODEL}:{keys.SUSPECT_LANE}:{owner}"


@dataclass(eq=False)
class ModelChunk:
    job: "ModelJob"
    chunk_ref: ChunkRef
    upload: bytes
    place: str
    """The Redis key of the queue or lease that has it until it is finished."""
    pointer: Pointer | None = None
    """To the file of the spool that has the upload."""
    outcomes: list[Outcome] = field(default_factory=list)
    failure_counts: FailureCounts = field(default_factory=FailureCounts)
    progress: bytes = b""

    @property
    def waits(self) -> bool:
        return self.job.live and not self.outcomes

    @property
    def suspect(self) -> bool:
        return self.place == suspects(self.job.owner)

    def submitted(self) -> Chunk:
        """The chunk in the form of a submission."""
        first = sum(chunk.chunk_ref.items for chunk in self.job.chunks[: self.chunk_ref.chunk])
        names: list[str | None] = [f"{first + n}.png" for n in range(self.chunk_ref.items)]
        stored = self.upload if self.pointer is None else self.pointer.pack()
        return Chunk(names, len(self.upload), stored, pointer=self.pointer)

    @property
    def cost(self) -> tuple[int, int]:
        """Its bytes in the upload budget, and in that of the spool."""
        if self.pointer is not None:
            return keys.UPLOAD_KEY_BYTES + keys.POINTER_BYTES, self.pointer.size
        return keys.UPLOAD_KEY_BYTES + len(self.upload), 0

    @property
    def file(self) -> str:
        return "" if self.pointer is None else self.pointer.name

    def shown(self) -> list[Shown]:
        if self.outcomes:
            return [
                (ItemState.FAILED if isinstance(outcome, Failure) else ItemState.SUCCEEDED, outcome)
                for outcome in self.outcomes
            ]
        if self.job.failure_code is not None:
            return [(ItemState.FAILED, Failure(self.job.failure_code))] * self.chunk_ref.items
        canceled = self.job.state is JobState.CANCELED
        return [(ItemState.CANCELED if canceled else ItemState.PENDING, None)] * self.chunk_ref.items

    def add_failure(self, reason: str, reached: int | None) -> None:
        counts, lost = self.failure_counts, reason == WORKER_LOST
        code = counts.code if lost else reason
        if reached is not None and reached >= 0:
            name = f"{keys.ITEM_LOST if lost else ''}{reached}"
            items = {**counts.items, name: counts.items.get(name, 0) + 1}
            self.failure_counts = replace(counts, items=items, code=code)
        elif lost:
            self.failure_counts = replace(counts, lost_leases=counts.lost_leases + 1)
        else:
            self.failure_counts = replace(counts, crashes=counts.crashes + 1, code=reason)


@dataclass(eq=False)
class ModelJob:
    id: bytes
    owner: str
    lane: Lane
    key: bytes
    hook: bool
    fingerprint: bytes = b""
    state: JobState = JobState.QUEUED
    part: Part | None = None
    """Set for a job that is or was open."""
    seals_itself: bool = False
    quota: ItemQuota = UNLIMITED
    in_share: bool = True
    """False if an earlier release accepted it."""
    started: bool = False
    gone: bool = False
    failure_code: ItemCode | None = None
    chunks: list[ModelChunk] = field(default_factory=list)

    @property
    def live(self) -> bool:
        return not self.state.ended

    @property
    def ended_list(self) -> str:
        return keys.ENDED_OF_OWNER + self.owner if self.in_share else keys.ENDED

    @property
    def total(self) -> int:
        return sum(chunk.chunk_ref.items for chunk in self.chunks)

    def shown(self) -> list[Shown]:
        return [shown for chunk in self.chunks for shown in chunk.shown()]

    def count(self, state: ItemState) -> int:
        return sum(shown is state for shown, _ in self.shown())

    def new_chunk(self, images: list[bytes]) -> ModelChunk:
        """A chunk that is not added yet."""
        upload = make_chunk(images).data
        assert upload is not None
        chunk_ref = ChunkRef(self.id, len(self.chunks), len(images), len(upload))
        return ModelChunk(self, chunk_ref, upload, ready(self.lane, self.owner))


@dataclass(eq=False)
class ModelLease:
    lease: Lease
    chunks: list[ModelChunk]
    leased: list[ModelChunk]
    """The chunks that are still under this lease."""
    reached: int | None
    """The item that a suspect run has reached."""

    @property
    def token(self) -> str:
        return self.lease.token


class ReferenceModel:
    def __init__(self) -> None:
        self.jobs = list[ModelJob]()
        self.keyed = dict[tuple[str, bytes], ModelJob]()
        self.ended = defaultdict[str, list[ModelJob]](list)
        """By the name of their list in Redis, in its order, until a sweep removes them."""
        self.leases = list[ModelLease]()
        self.used = Counter[str]()
        """Items accepted with a key that has a daily quota, by the name of its counter in Redis."""

    # -- changes

    def accept(self, job: ModelJob) -> None:
        self.jobs.append(job)
        if job.key:
            self.keyed[job.owner, job.key] = job

    def seal(self, job: ModelJob) -> None:
        job.state = JobState.RUNNING if job.started else JobState.QUEUED
        self._end_if_done(job)

    def claim(self, lease: Lease) -> None:
        chunks = [self.chunk(claimed.chunk_ref) for claimed in lease.chunks]
        for chunk in chunks:
            chunk.place = keys.LEASED_CHUNKS + lease.token
            chunk.job.started = True
            if chunk.job.state is JobState.QUEUED:
                chunk.job.state = JobState.RUNNING
        if chunks:
            self.leases.append(ModelLease(lease, chunks, list(chunks), -1 if lease.suspect else None))

    def finish(self, lease: ModelLease, chunk: ModelChunk, outcomes: list[Outcome]) -> int:
        """How many items got their terminal state."""
        if chunk not in lease.leased:
            return 0
        lease.leased.remove(chunk)
        if not chunk.waits:
            return 0
        chunk.outcomes = outcomes
        if chunk.job.state is not JobState.OPEN:
            self._end_if_done(chunk.job)
        return chunk.chunk_ref.items

    def release(self, lease: ModelLease, reason: str) -> int:
        """How many chunks were made ready."""
        chunks = [chunk for chunk in lease.leased if chunk.waits]
        reason = RETURNED if lease.reached == PAUSED else reason
        for chunk in chunks:
            if reason != RETURNED:
                chunk.add_failure(reason, lease.reached)
            crashed = reason not in (RETURNED, WORKER_LOST)
            suspect = lease.reached is not None or crashed or chunk.failure_counts.lost_leases >= 2
            chunk.place = suspects(chunk.job.owner) if suspect else ready(chunk.job.lane, chunk.job.owner)
        lease.leased.clear()
        return len(chunks)

    def end(self, job: ModelJob, state: JobState | None = None) -> None:
        if state is None:
            state = JobState.COMPLETED if job.count(ItemState.SUCCEEDED) else JobState.FAILED
        job.state = state
        self.ended[job.ended_list].append(job)

    def delete(self, job: ModelJob) -> None:
        if job.live:
            self.end(job, JobState.CANCELED)
        job.gone = True
        if self.keyed.get((job.owner, job.key)) is job:
            del self.keyed[job.owner, job.key]

    def sweep(self) -> None:
        for ended in self.ended.values():
            while ended and ended[0].gone:
                ended.pop(0)

    def _end_if_done(self, job: ModelJob) -> None:
        if job.count(ItemState.PENDING) == 0:
            self.end(job)

    # -- state

    def there(self) -> list[ModelJob]:
        return [job for job in self.jobs if not job.gone]

    def open(self) -> list[ModelJob]:
        return [job for job in self.jobs if job.state is JobState.OPEN]

    def keeps_the_last_process(self, serving: int) -> bool:
        """Whether all but one of the processes are at suspects: no other takes one."""
        at_suspects = [lease for lease in self.leases if lease.leased and lease.reached is not None]
        return 0 < serving <= len(at_suspects) + 1 and bool(at_suspects)

    def share(self, items_max: int, unshared: int, serving: int, chunks: int) -> int:
        """How many items of the interactive lane, in which so many chunks wait, one of the processes may claim."""
        idle = serving - len(self.live_leases())
        return items_max if idle <= 1 else min(items_max, max(unshared, ceil(chunks / idle)))

    def waiting(self) -> list[ModelChunk]:
        return list(self._waiting())

    def live_leases(self) -> list[ModelLease]:
        return [lease for lease in self.leases if lease.leased]

    def pending(self, owner: str) -> int:
        return sum(chunk.chunk_ref.items for chunk in self._waiting() if chunk.job.owner == owner)

    def terminal(self) -> int:
        """Items in a terminal state, of jobs that are gone, too."""
        return sum(job.total - job.count(ItemState.PENDING) for job in self.jobs)

    def chunk(self, chunk_ref: ChunkRef) -> ModelChunk:
        (job,) = (job for job in self.jobs if job.id == chunk_ref.job_id)
        return job.chunks[chunk_ref.chunk]

    def _waiting(self) -> Iterator[ModelChunk]:
        return (chunk for job in self.jobs if job.live for chunk in job.chunks if chunk.waits)
