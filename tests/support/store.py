"""The store as the API and as workers use it, with short calls for the steps of most tests."""

import itertools
from collections.abc import Sequence

import redis

from jobs.codec import pack_outcomes, pack_upload
from jobs.records import Failure, Job, Lane, Outcome, Prediction
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.job_reader import JobReader
from jobs.store.for_api.open_job_parts import OpenJobLimits, OpenJobParts, Part
from jobs.store.for_api.submission import Chunk, Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.upload_budget import UploadBudget
from jobs.store.for_workers.leases import FinishedChunk, Lease, LeaseStore
from jobs.store.job_hash import job_key
from jobs.store.keys import OwnerToken
from tests.support.waiting import eventually

MODEL = "fmnist-mlp"
OWNER = "public"
WORKER_ID = "worker1"
COAT: Outcome = [Prediction(4, 0.75), Prediction(6, 0.125)]


LIMITS = OpenJobLimits(
    owner_pending_items_max=1_000_000, job_items_max=1_000_000, room_wait_seconds_max=1, hold_seconds=30
)


def make_upload_budget(settings: StoreSettings) -> UploadBudget:
    spool_bytes = settings.uploads_spool_bytes_max
    return UploadBudget(settings.uploads_budget_bytes, 1, bulk_fraction=0.8, spool_bytes=spool_bytes)


def owner_token(sequence: int = 0, *, worker_id: str = WORKER_ID, task_id: str = "task", pid: int = 1) -> str:
    return OwnerToken(worker_id, task_id, pid, sequence).pack()


class Store:
    def __init__(self, store_client: StoreClient, leases: LeaseStore, client: "redis.Redis[bytes]") -> None:
        self.store_client = store_client
        self.jobs = JobReader(store_client)
        self.upload_budget = make_upload_budget(store_client.settings)
        self.submitter = Submitter(store_client, self.upload_budget, owner_pending_items_max=1_000_000)
        self.open_jobs = OpenJobParts(store_client, self.upload_budget, LIMITS)
        self.leases = leases
        self.redis = client
        self._turn = itertools.count(0, 2)  # even: no turn goes to suspects or to bulk first

    async def submission(
        self, *images: bytes, owner: str = OWNER, lane: Lane = Lane.INTERACTIVE, model: str = MODEL
    ) -> Submission:
        """A job of one chunk that is not accepted yet."""
        uploads = list(images) or [b"image"]
        chunk = make_chunk(uploads, 0) if len(uploads) > 1 else make_chunk(uploads)
        return Submission(await self.submitter.new_id(owner), owner, model, lane, 5, chunk)

    async def open(
        self, *, owner: str = OWNER, lane: Lane = Lane.BULK, model: str = MODEL, seconds: float = 60
    ) -> Part:
        """An open job, and its only part."""
        submission = Submission(await self.submitter.new_id(owner), owner, model, lane, 5)
        await self.submitter.enqueue(submission, open_seconds=seconds)
        return Part(submission.id, owner, lane, seconds)

    async def submit(
        self,
        *images: bytes,
        owner: str = OWNER,
        lane: Lane = Lane.INTERACTIVE,
        chunk_items: int = 64,
        model: str = MODEL,
        name: str | None = None,
    ) -> bytes:
        """Submit a job in chunks of so many images. With `name`, all images have this name."""
        if len(images) <= chunk_items:
            submission = await self.submission(*images, owner=owner, lane=lane, model=model)
            if name is not None:
                chunk_of(submission).names = [name] * len(images)
            await self.submitter.enqueue(submission)
            return submission.id
        part = await self.open(owner=owner, lane=lane, model=model)
        for at in range(0, len(images), chunk_items):
            await self.open_jobs.add(part, make_chunk(images[at : at + chunk_items], at), bytes(16))
        await self.open_jobs.seal(part.job_id, owner)
        return part.job_id

    def claim(self, token: str | int = 0, *, items: int = 64, turn: int | None = None, model: str = MODEL) -> Lease:
        """A lease under this token, or under `owner_token` with this sequence number."""
        token = owner_token(token) if isinstance(token, int) else token
        turn = 8 * next(self._turn) if turn is None else turn
        return self.leases.claim(model, token, items_max=items, bytes_max=64 << 20, turn=turn)

    async def claimed(self) -> Lease:
        """The first lease that has chunks."""
        return await eventually(lambda: lease if (lease := self.claim()).chunks else None, what="work")

    def finish(self, lease: Lease, outcome: Outcome = COAT) -> int:
        """Give every image of the lease the same outcome."""
        return self.leases.finish(lease.token, finished(lease, outcome))

    async def get(self, job_id: bytes, owner: str = OWNER) -> Job:
        return await self.jobs.get(job_id, owner)

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    def record_bytes(self, job_id: bytes) -> int:
        """The bytes that the job counts for in the record budget; 0 if the job is deleted."""
        return int(self.redis.hget(job_key(job_id), keys.FIELDS["record_bytes"]) or 0)

    def age(self, job_id: bytes, seconds: float) -> None:
        """Move the job's times of acceptance, activity and end back by so many seconds."""
        job = job_key(job_id)
        for name in ("accepted_ms", "active_ms", "ended_ms"):
            if self.redis.hexists(job, keys.FIELDS[name]):
                self.redis.hincrby(job, keys.FIELDS[name], -int(seconds * 1000))
        self.note_oldest((self.redis.hget(job, keys.FIELDS["owner"]) or b"").decode())

    def note_oldest(self, owner: str) -> None:
        """After a change of when jobs of this owner ended: note it where the sweep looks for the first of them."""
        for first in self.redis.lrange(keys.ENDED_OF_OWNER + owner, 0, 0):
            self.redis.zadd(keys.OLDEST_ENDED, {owner: self.redis.hget(job_key(first), keys.FIELDS["ended_ms"]) or 0})

    def keys(self) -> set[bytes]:
        return set(self.redis.keys())

    def suspects(self, owner: str = OWNER) -> str:
        """The key of the list of this owner's suspects."""
        return f"{keys.READY}{MODEL}:{keys.SUSPECT_LANE}:{owner}"

    def expire_lease(self, lease: Lease) -> None:
        """Set the lease's end to a time in the past."""
        self.redis.zadd(keys.LEASES, {lease.token: 1})


def make_chunk(images: Sequence[bytes], first: int | None = None) -> Chunk:
    """Images named by their number, or nameless."""
    data = pack_upload(images)
    return Chunk([None if first is None else f"{first + n}.png" for n in range(len(images))], len(data), data)


def chunk_of(submission: Submission) -> Chunk:
    assert submission.chunk is not None
    return submission.chunk


def finished(lease: Lease, outcome: Outcome = COAT) -> Sequence[FinishedChunk]:
    done = []
    for claimed in lease.chunks:
        items = claimed.chunk_ref.items
        succeeded = 0 if isinstance(outcome, Failure) else items
        done.append(FinishedChunk(claimed.chunk_ref, succeeded, pack_outcomes("fmnist-mlp@1", [outcome] * items)))
    return done
