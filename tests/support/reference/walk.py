"""The base of the steps of a random walk in the store and the reference model. See `test_reference_model.py`."""

import asyncio
import itertools
import zlib
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from jobs.codec import pack_outcomes, pack_retained
from jobs.errors import (
    DailyQuotaExceeded,
    DarkroomError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    JobEnded,
    JobExpired,
    JobNotFound,
    QuotaExceeded,
)
from jobs.item_codes import ItemCode
from jobs.records import ChunkRef, Failure, Job, JobState, Lane, Outcome, Prediction
from jobs.spool.folder import SUBFOLDER
from jobs.spool.names import Pointer, new_failed_name, new_upload_name
from jobs.store import keys
from jobs.store.for_api.item_quota import UNLIMITED, ItemQuota
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_api.submission import ExistingJob, Submission
from jobs.store.for_workers.leases import FinishedChunk
from jobs.store.job_hash import job_key, upload_key
from tests.support.reference.reference_model import ModelChunk, ModelJob, ModelLease, ReferenceModel, Shown, ready
from tests.support.store import MODEL, Store

T = TypeVar("T")

OWNERS = ("alice", "bob")
UNSHARED = 2  # items of the interactive lane that a claim never leaves to idle processes
QUOTA, JOB_ITEMS_MAX = 8, 4  # small enough that both limits are often reached
PENDING_WITH_KEY, DAILY = 6, 16  # of an API key that many jobs are submitted with
OVER_MS = (86_400 + 60) * 1000  # longer than the time to live of a result, and than the queue deadline


def quota_of_key() -> ItemQuota:
    quota = ItemQuota("key")
    quota.per_day, quota.pending_max = DAILY, PENDING_WITH_KEY
    return quota


QUOTAS = (UNLIMITED, quota_of_key())


class StoreWalk:
    """A store and its reference model, and steps in both."""

    store: Store
    redis: Any
    run: Callable[[Coroutine[Any, Any, Any]], Any]
    seen: Counter[str]
    """How often each event has occurred."""
    model: ReferenceModel
    numbers: Iterator[int]
    spool_sweep: SpoolSweep

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
        submission.result_bytes = next(self.numbers) % 3 * 20
        job.quota = submission.quota = QUOTAS[next(self.numbers) % len(QUOTAS)]
        if job.part is not None:
            job.part.quota = job.quota
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
        items = 0 if chunk is None else chunk.chunk_ref.items
        refusal = self.refusal_of_quota(job, items)
        if first is not None and first.live:
            refusal = IdempotencyInProgress
        self.ask(enqueue, refusal)
        if refusal is None:
            if chunk is not None:
                self.add_chunk(job, chunk)
            self.model.accept(job)
            if next(self.numbers) % 4 == 0:
                self.leave_out_of_shares(job)

    def leave_out_of_shares(self, job: ModelJob) -> None:
        """As if an earlier release had accepted the job just now, beside this one."""
        self.seen["accepted by an earlier release"] += 1
        job.in_share = False
        uploads, spooled = (sum(chunk.cost[at] for chunk in job.chunks) for at in (0, 1))
        record_bytes = int(self.redis.hget(job_key(job.id), keys.FIELDS["record_bytes"]))
        self.redis.hdel(job_key(job.id), keys.FIELDS["in_share"])
        self.redis.hincrby(keys.STATS, f"uploads:{job.owner}", -uploads)
        self.redis.hincrby(keys.STATS, f"spooled:{job.owner}", -spooled)
        if self.redis.zincrby(keys.OWNERS, -record_bytes, job.owner) == 0:
            self.redis.zrem(keys.OWNERS, job.owner)

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
            if images and next(self.numbers) % 2:
                images = Pointer(new_failed_name(chunk.job.id, chunk.chunk_ref.chunk), len(images), 0).pack()
            packed = pack_outcomes(f"{MODEL}@1", outcomes)
            done.append(FinishedChunk(chunk.chunk_ref, succeeded, packed, images, chunk.file))
            self.seen["refused finish"] += chunk.waits and chunk not in lease.leased
            expected += self.model.finish(lease, chunk, outcomes)
        assert self.store.leases.finish(lease.token, done) == expected

    def sweep_store(self) -> None:
        self.run(self.store.jobs.sweep([MODEL]))

    def new_id(self, owner: str) -> bytes:
        return self.run(self.store.submitter.new_id(owner))

    def new_chunk(self, job: ModelJob, items: int) -> ModelChunk:
        """Every third one has its bytes in the spool. In there they are not on the disk: no walk loses power."""
        chunk = job.new_chunk([b"%d" % next(self.numbers) for _ in range(items)])
        if next(self.numbers) % 3 == 0:
            chunk.chunk_ref = chunk.chunk_ref._replace(spooled=True)
            chunk.pointer = Pointer(new_upload_name(job.id), len(chunk.upload), zlib.crc32(chunk.upload))
            (self.spool / chunk.file).write_bytes(chunk.upload)
        return chunk

    @property
    def spool(self) -> Path:
        return Path(self.store.store_client.settings.uploads_url.removeprefix("file://")) / SUBFOLDER

    def refusal_of_parts(self, job: ModelJob) -> type[DarkroomError] | None:
        if job.gone:
            return JobNotFound
        return JobEnded if job.state is JobState.CANCELED else None

    def refusal_of_quota(self, job: ModelJob, items: int) -> type[DarkroomError] | None:
        pending_max = min(QUOTA, QUOTA if job.quota.pending_max is None else job.quota.pending_max)
        if self.model.pending(job.owner) + items > pending_max:
            return QuotaExceeded
        per_day, used = job.quota.per_day, self.model.used[self.counter(job.quota)]
        return DailyQuotaExceeded if per_day is not None and items and used + items > per_day else None

    def add_chunk(self, job: ModelJob, chunk: ModelChunk) -> None:
        job.chunks.append(chunk)
        if job.quota.per_day is not None:
            self.model.used[self.counter(job.quota)] += chunk.chunk_ref.items

    def expiring_counters(self) -> set[bytes]:
        assert all(0 < self.redis.ttl(name) <= 25 * 3600 for name in self.model.used)
        return {name.encode() for name in (*self.model.used, keys.HEARTBEATS + MODEL)}

    def counter(self, quota: ItemQuota) -> str:
        """The name of today's counter of a key."""
        seconds, _ = self.redis.time()
        return f"{keys.ITEMS_OF_DAY}{quota.key_id}:{seconds // 86_400}"

    def were_open(self) -> list[ModelJob]:
        return [job for job in self.model.jobs if job.part]

    def lease(self, pick: int, *, late: bool = False) -> ModelLease:
        """A live lease; with `late`, any lease, of which most have ended."""
        if not self.model.live_leases() and self.model.waiting():
            self.claim(turn=pick % 8, items=8, bulk=8, size=1 << 20)
        return picked(pick, self.model.leases if late else self.model.live_leases() or self.model.leases)

    def serve(self, processes: int, items_max: int) -> int:
        """Show so many processes. Returns how many items of the interactive lane one of them may claim."""
        name = keys.HEARTBEATS + MODEL
        self.redis.delete(name)
        if processes:
            self.redis.zadd(name, {f"{MODEL}@1|worker|{pid}": 1e15 for pid in range(processes)})
            self.redis.expire(name, 3600)
        queued = [self.redis.llen(ready(Lane.INTERACTIVE, owner)) for owner in OWNERS]
        return self.model.share(items_max, UNSHARED, processes, sum(queued))

    def heads(self) -> Iterator[ModelChunk]:
        """The next chunk of each queue."""
        for name in self.redis.keys(keys.READY + "*"):
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
                self.store.note_oldest(job.owner)
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
        since = "active_ms" if self.redis.hexists(job_key(job.id), keys.FIELDS["active_ms"]) else "accepted_ms"
        self.redis.hincrby(job_key(job.id), keys.FIELDS[since], -OVER_MS)
        self.sweep_store()
        if late:
            self.seen["queue deadline"] += 1
            job.failure_code = ItemCode.DEADLINE_EXCEEDED
            self.model.end(job)
        else:
            self.redis.hincrby(job_key(job.id), keys.FIELDS[since], OVER_MS)

    def sweep(self) -> None:
        self.sweep_store()
        self.model.sweep()
        expected = {upload_key(chunk.job.id, chunk.chunk_ref.chunk) for chunk in self.model.waiting()}
        assert set(self.redis.keys(keys.UPLOAD + "*")) == expected
        self.run(self.spool_sweep.run_once())
        files = {path.name for path in self.spool.glob("*.upload")}
        needed = {chunk.file for chunk in self.model.waiting() if chunk.file}
        assert needed <= files
        # The file of a repeated add stays while its job lives, and those of a deleted job for a while.
        left = {bytes.fromhex(name[:32]) for name in files - needed}
        assert left <= {job.id for job in self.model.jobs if job.gone or job.live}


def picked(pick: int, among: Iterable[T]) -> T:
    """Mostly one of the four latest, on which most steps have an effect."""
    latest = list(among)[::-1]
    return latest[pick % (len(latest) if pick % 4 == 0 else min(len(latest), 4))]
