"""The base of the steps of a random walk in the store and the reference model. See `test_reference_model.py`."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

import pytest

from jobs.codec import pack_outcomes, pack_retained
from jobs.errors import (
    DarkroomError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    JobEnded,
    JobExpired,
    JobNotFound,
    QuotaExceeded,
)
from jobs.item_codes import ItemCode
from jobs.records import ChunkRef, Failure, Job, JobState, Outcome, Prediction
from jobs.store import keys
from jobs.store.for_api.submit import ExistingJob, Submission
from jobs.store.for_workers.leases import FinishedChunk
from jobs.store.job_hash import job_key, upload_key
from tests.support.reference.reference_model import SUSPECTS, ModelChunk, ModelJob, ModelLease, ReferenceModel, Shown
from tests.support.store import MODEL, Store

T = TypeVar("T")

OWNERS = ("alice", "bob")
QUOTA, JOB_ITEMS_MAX = 8, 4  # small enough that both limits are often reached
OVER_MS = (86_400 + 60) * 1000  # longer than the time to live of a result, and than the queue deadline


class StoreWalk:
    """A store and its reference model, and steps in both."""

    store: Store
    redis: Any
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    seen: Counter[str]
    """How often each event has occurred."""
    model: ReferenceModel
    numbers: Iterator[int]

    def claim(self, *, turn: int, items: int, bulk: int, size: int) -> None:
        raise NotImplementedError

    def ask(self, coroutine: Coroutine[Any, Any, T], refusal: type[DarkroomError] | None = None) -> T | None:
        """The result, or None if the coroutine raises the expected refusal."""
        if refusal is None:
            return self.run(coroutine)
        self.seen[refusal.__name__] += 1
        with pytest.raises(refusal):
            self.run(coroutine)
        return None

    def enqueue(self, job: ModelJob, chunk: ModelChunk | None) -> None:
        submission = Submission(job.id, job.owner, MODEL, job.lane, 5, key=job.key, fingerprint=job.fingerprint)
        submission.chunk = None if chunk is None else chunk.submitted()
        submission.webhook_url = "https://example.com/hook" if job.hook else ""
        enqueue = self.store.submitter.enqueue(submission, open_seconds=60)
        first = self.model.keyed.get((job.owner, job.key))
        if first is not None and first.fingerprint:
            if job.fingerprint in {b"", first.fingerprint}:
                self.seen["earlier job"] += 1
                assert self.run(enqueue) == ExistingJob(first.id, first.fingerprint)
            else:
                self.ask(enqueue, IdempotencyKeyReused)
            return
        refusal = self.refusal_of_quota(job, 0 if chunk is None else chunk.chunk_ref.items)
        if first is not None and first.live:
            refusal = IdempotencyInProgress
        self.ask(enqueue, refusal)
        if refusal is None:
            job.chunks += [] if chunk is None else [chunk]
            self.model.accept(job)

    def finish_chunks(
        self, lease: ModelLease, chunks: list[ModelChunk], good: tuple[bool, ...] = (True,) * 4, retained: bytes = b""
    ) -> None:
        done, expected = list[FinishedChunk](), 0
        for chunk in chunks:
            outcomes: list[Outcome] = [
                [Prediction(next(self.numbers) % 65536, 0.5)] if good[at] else Failure(ItemCode.CORRUPT_IMAGE)
                for at in range(chunk.chunk_ref.items)
            ]
            succeeded = sum(good[: chunk.chunk_ref.items])
            images = pack_retained([(0, retained)]) if retained and not good[0] else b""
            done.append(FinishedChunk(chunk.chunk_ref, succeeded, pack_outcomes(f"{MODEL}@1", outcomes), images))
            self.seen["refused finish"] += chunk.waits and chunk not in lease.leased
            expected += self.model.finish(lease, chunk, outcomes)
        assert self.store.leases.finish(lease.token, done) == expected

    def sweep_store(self) -> None:
        self.run(self.store.jobs.sweep([MODEL]))

    def new_id(self, owner: str) -> bytes:
        return self.run(self.store.submitter.new_id(owner))

    def new_chunk(self, job: ModelJob, items: int) -> ModelChunk:
        return job.new_chunk([b"%d" % next(self.numbers) for _ in range(items)])

    def refusal_of_parts(self, job: ModelJob) -> type[DarkroomError] | None:
        if job.gone:
            return JobNotFound
        return JobEnded if job.state is JobState.CANCELED else None

    def refusal_of_quota(self, job: ModelJob, items: int) -> type[DarkroomError] | None:
        return QuotaExceeded if self.model.pending(job.owner) + items > QUOTA else None

    def were_open(self) -> list[ModelJob]:
        return [job for job in self.model.jobs if job.part]

    def lease(self, pick: int, *, late: bool = False) -> ModelLease:
        """A live lease; with `late`, any lease, of which most have ended."""
        if not self.model.live_leases() and self.model.waiting():
            self.claim(turn=pick % 8, items=8, bulk=8, size=1 << 20)
        return picked(pick, self.model.leases if late else self.model.live_leases() or self.model.leases)

    def heads(self) -> Iterator[ModelChunk]:
        """The next chunk of each queue."""
        for name in [SUSPECTS.encode(), *self.redis.keys(keys.READY + "*")]:
            chunks = (self.model.chunk(ChunkRef.unpack(chunk_ref)) for chunk_ref in self.redis.lrange(name, 0, -1))
            yield from itertools.islice((chunk for chunk in chunks if chunk.waits), 1)

    async def read_all(self) -> list[tuple[Job | None, list[Shown]]]:
        return await asyncio.gather(*map(self.read, self.model.jobs))

    async def read(self, job: ModelJob) -> tuple[Job | None, list[Shown]]:
        try:
            found = await self.store.jobs.get(job.id, job.owner)
        except JobExpired:
            return None, []
        items = [item async for _, _, item in self.store.jobs.items(found)]
        assert [item.name for item in items] == [f"{number}.png" for number in range(found.total)]
        return found, [(item.state, item.outcome) for item in items]

    # -- time

    def expire(self, jobs: list[ModelJob]) -> None:
        for job in jobs:
            if not job.gone:
                self.redis.hincrby(job_key(job.id), keys.FIELDS["ended_ms"], -OVER_MS)
                self.model.delete(job)
                self.seen["expired"] += 1

    def pass_open_deadline(self, job: ModelJob) -> None:
        self.redis.zadd(keys.OPEN_DEADLINES, {job.id: 1})
        if job.seals_itself and job.chunks:  # as jobs of an earlier version may
            self.redis.hset(job_key(job.id), keys.FIELDS["at_deadline"], "s")
            self.seen["sealed itself"] += 1
            self.model.seal(job)
        else:
            self.model.end(job, JobState.CANCELED)

    def pass_queue_deadline(self, job: ModelJob) -> None:
        """The deadline ends the job only if one of its chunks is the next in its queue."""
        late = any(chunk.job is job for chunk in self.heads())
        self.redis.hincrby(job_key(job.id), keys.FIELDS["accepted_ms"], -OVER_MS)
        self.sweep_store()
        if late:
            self.seen["queue deadline"] += 1
            job.failure_code = ItemCode.DEADLINE_EXCEEDED
            self.model.end(job)
        else:
            self.redis.hincrby(job_key(job.id), keys.FIELDS["accepted_ms"], OVER_MS)

    def sweep(self) -> None:
        self.sweep_store()
        self.model.sweep()
        expected = {upload_key(chunk.job.id, chunk.chunk_ref.chunk) for chunk in self.model.waiting()}
        assert set(self.redis.keys(keys.UPLOAD + "*")) == expected


def picked(pick: int, among: Iterable[T]) -> T:
    """Mostly one of the four latest, on which most steps have an effect."""
    latest = list(among)[::-1]
    return latest[pick % (len(latest) if pick % 4 == 0 else min(len(latest), 4))]
