"""A simple model of the store: what a job's images are, and where each chunk stands. No Redis, no cleverness."""

from dataclasses import dataclass, field

from jobs import keys
from jobs.errors import ItemCode
from jobs.records import ItemState, JobState, Lane


@dataclass(eq=False)
class ModelChunk:
    job: "ModelJob"
    number: int
    items: int
    size: int
    place: str = "ready"
    """'ready', 'suspect', 'done', or the token of the lease that holds it."""
    states: list[ItemState] = field(default_factory=list)
    """Of its images, once it is done."""
    losses: int = 0
    crashes: int = 0
    item_crashes: dict[str, int] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        return self.place in ("ready", "suspect")


@dataclass(eq=False)
class ModelJob:
    id: bytes
    owner: str
    lane: Lane
    open: bool = False
    seals_itself: bool = False
    key: bytes = b""
    fingerprint: bytes = b""
    chunks: list[ModelChunk] = field(default_factory=list)
    ended: JobState | None = None
    gave_up: bool = False
    gone: bool = False

    @property
    def live(self) -> bool:
        return self.ended is None and not self.gone

    @property
    def pending(self) -> int:
        return sum(chunk.items for chunk in self.chunks if chunk.place != "done") if self.live else 0

    @property
    def succeeded(self) -> int:
        return sum(chunk.states.count(ItemState.SUCCEEDED) for chunk in self.chunks)

    @property
    def state(self) -> JobState | None:
        """None where the model does not tell queued from running."""
        return self.ended or (JobState.OPEN if self.open else None)

    def items(self) -> list[ItemState]:
        unfinished = ItemState.PENDING
        if self.gave_up:
            unfinished = ItemState.FAILED
        elif self.ended is JobState.CANCELED:
            unfinished = ItemState.CANCELED
        return [
            state
            for chunk in self.chunks
            for state in (chunk.states if chunk.place == "done" else [unfinished] * chunk.items)
        ]

    def settle(self) -> None:
        """The job ends when it is sealed and nothing is pending."""
        if self.live and not self.open and self.pending == 0:
            self.ended = JobState.COMPLETED if self.succeeded else JobState.FAILED


class Model:
    def __init__(self) -> None:
        self.jobs = list[ModelJob]()
        self.keyed = dict[tuple[str, bytes], ModelJob]()
        self.leases = dict[str, list[ModelChunk]]()
        """Chunks by token, those of ended jobs included."""
        self.reached = dict[str, int]()
        """Which item the suspect run under a token has reached; -1 before the first."""
        self.transitions = 0

    def find(self, job_id: bytes, number: int) -> ModelChunk:
        (job,) = (job for job in self.jobs if job.id == job_id)
        return job.chunks[number]

    def unfinished(self) -> list[ModelChunk]:
        return [chunk for job in self.jobs if job.live for chunk in job.chunks if chunk.place != "done"]

    def pending(self, owner: str) -> int:
        return sum(job.pending for job in self.jobs if job.owner == owner)

    def upload_bytes(self) -> int:
        return sum(chunk.size + keys.CHUNK_BYTES for chunk in self.unfinished())

    def claim(self, token: str, chunks: list[ModelChunk], *, suspect: bool) -> None:
        for chunk in chunks:
            chunk.place = token
        if chunks:
            self.leases[token] = chunks
        if suspect:
            self.reached[token] = -1

    def finish(self, token: str, chunk: ModelChunk, states: list[ItemState]) -> int:
        """Returns how many images got their state."""
        held = self.leases.get(token, [])
        if chunk not in held:
            return 0
        held.remove(chunk)
        if not held:
            self._drop(token)
        if not chunk.job.live:
            return 0
        chunk.place, chunk.states = "done", states
        self.transitions += chunk.items
        chunk.job.settle()
        return chunk.items

    def lapse(self, token: str, why: str) -> int:
        """Returns how many chunks are ready again."""
        reached = self.reached.get(token)
        chunks = [chunk for chunk in self.leases.get(token, []) if chunk.job.live]
        self._drop(token)
        for chunk in chunks:
            if why == ItemCode.WORKER_LOST:
                chunk.losses += 1
            elif why != "returned" and reached is not None and reached >= 0:
                chunk.item_crashes[str(reached)] = chunk.item_crashes.get(str(reached), 0) + 1
            elif why != "returned":
                chunk.crashes += 1
            harmless = why in ("returned", ItemCode.WORKER_LOST)
            chunk.place = "ready" if harmless and reached is None else "suspect"
        return len(chunks)

    def end(self, job: ModelJob, state: JobState, *, gave_up: bool = False) -> None:
        """End a live job whatever is pending."""
        self.transitions += job.pending
        job.ended, job.gave_up, job.open = state, gave_up, False

    def forget(self, job: ModelJob) -> None:
        if job.live:
            self.end(job, JobState.CANCELED)
        job.gone = True
        if self.keyed.get((job.owner, job.key)) is job:
            del self.keyed[job.owner, job.key]

    def _drop(self, token: str) -> None:
        self.leases.pop(token, None)
        self.reached.pop(token, None)
