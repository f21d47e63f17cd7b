"""The store from both sides, with short words for what most tests do."""

import itertools
from collections.abc import Sequence

import redis

from jobs import keys
from jobs.leases import FinishedChunk, Lease, LeaseStore
from jobs.link import StoreLink
from jobs.records import Failure, Job, Lane, Outcome, Prediction, pack_outcomes, pack_upload
from jobs.store import JobStore
from jobs.submit import Chunk, Submission, Submitter
from tests.support.waiting import eventually

MODEL = "fmnist-mlp"
OWNER = "public"
COAT: Outcome = [Prediction(4, 0.75), Prediction(6, 0.125)]


class Store:
    def __init__(self, link: StoreLink, leases: LeaseStore, client: "redis.Redis[bytes]") -> None:
        self.link = link
        self.jobs = JobStore(link)
        self.submitter = Submitter(link, owner_pending_items_max=1_000_000)
        self.leases = leases
        self.redis = client
        self._turn = itertools.count(0, 2)  # even: no turn goes to suspects or to bulk first

    async def submission(
        self,
        *images: bytes,
        owner: str = OWNER,
        lane: Lane = Lane.INTERACTIVE,
        chunk_items: int = 64,
        model: str = MODEL,
    ) -> Submission:
        """A job that is not accepted yet, of chunks of so many images."""
        uploads = list(images) or [b"image"]
        chunks = list[Chunk]()
        for at in range(0, len(uploads), chunk_items):
            part = uploads[at : at + chunk_items]
            data = pack_upload(part)
            chunks.append(
                Chunk([None if len(uploads) == 1 else f"{at + n}.png" for n in range(len(part))], len(data), data)
            )
        return Submission(await self.submitter.new_id(owner), owner, model, lane, 5, chunks)

    async def submit(
        self,
        *images: bytes,
        owner: str = OWNER,
        lane: Lane = Lane.INTERACTIVE,
        chunk_items: int = 64,
        model: str = MODEL,
    ) -> bytes:
        submission = await self.submission(*images, owner=owner, lane=lane, chunk_items=chunk_items, model=model)
        await self.submitter.enqueue(submission)
        return submission.id

    def claim(
        self, token: str = "boot|task|1|0", *, items: int = 64, turn: int | None = None, model: str = MODEL
    ) -> Lease:
        turn = 8 * next(self._turn) if turn is None else turn
        return self.leases.claim(model, token, items_max=items, bytes_max=64 << 20, turn=turn)

    async def claimed(self) -> Lease:
        """The first lease with something in it."""
        return await eventually(lambda: lease if (lease := self.claim()).chunks else None, what="work")

    def finish(self, lease: Lease, outcome: Outcome = COAT) -> int:
        """Give every image of the lease the same outcome."""
        return self.leases.finish(lease.token, finished(lease, outcome))

    async def get(self, job_id: bytes, owner: str = OWNER) -> Job:
        return await self.jobs.get(job_id, owner)

    def stat(self, name: str) -> int:
        return int(self.redis.hget(keys.STATS, name) or 0)

    def keys(self) -> set[bytes]:
        return set(self.redis.keys())

    def lapse_now(self, lease: Lease) -> None:
        """Let the lease's end lie in the past."""
        self.redis.zadd(keys.LEASES, {lease.token: 1})


def finished(lease: Lease, outcome: Outcome = COAT) -> Sequence[FinishedChunk]:
    done = []
    for claimed in lease.chunks:
        items = claimed.entry.items
        succeeded = 0 if isinstance(outcome, Failure) else items
        done.append(FinishedChunk(claimed.entry, succeeded, pack_outcomes("fmnist-mlp@1", [outcome] * items)))
    return done
