"""Random steps against a model: after each of them, store and model must show the same."""

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from jobs.codec import pack_outcomes, pack_retained
from jobs.errors import (
    DarkroomError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    JobEmpty,
    JobEnded,
    JobExpired,
    JobNotFound,
    JobSealed,
    QuotaExceeded,
    UploadTooLarge,
)
from jobs.item_codes import ItemCode
from jobs.records import LANE_CODE, ChunkRef, Failure, ItemState, Job, JobState, Lane, Outcome, Prediction
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.client import StoreClient
from jobs.store.job_hash import idempotency_key_name, job_key, upload_key
from jobs.store.leases import RETURNED, WORKER_LOST, ClaimedChunk, FinishedChunk, LeaseStore
from jobs.store.open_job_parts import OpenJobLimits, OpenJobParts, Part
from jobs.store.submit import ExistingJob, Submission, Submitter
from tests.conftest import open_store_client
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.reference_model import SUSPECTS, ModelChunk, ModelJob, ModelLease, ReferenceModel, Shown, ready
from tests.support.store import MODEL, Store, owner_token

T = TypeVar("T")

EXAMPLES, STEPS, STEPS_MIN = 40, 150, 20_000
WALKS_MAX, SEEN_MIN = 16, 20
OWNERS = ("alice", "bob")
QUOTA, JOB_ITEMS_MAX = 8, 4  # small enough for both to be met often
OVER_MS = (86_400 + 60) * 1000  # longer than a result is kept, and than a job may wait

PICK = st.integers(0, 999)
RARELY = st.sampled_from([False, False, False, True])
OWNER = st.sampled_from(OWNERS)
LANE = st.sampled_from(Lane)
ITEMS = st.integers(1, 4)
WANTED = st.sampled_from([0, 1, 4, 4, 8, 8])
KEY = st.sampled_from([b"", b"", b"k" * 16, b"l" * 16])
FINGERPRINT = st.sampled_from([b"f" * 16, b"f" * 16, b"g" * 16])


TO_BE_SEEN = (
    *("earlier job", "expired", "queue deadline", "refused finish", "renewed in time", "repeated add", "sealed itself"),
    *("suspect run", "IdempotencyInProgress", "IdempotencyKeyReused", "JobEmpty", "JobEnded", "JobExpired"),
    *("JobNotFound", "JobSealed", "QuotaExceeded", "UploadTooLarge"),
)


class StoreMachine(RuleBasedStateMachine):
    """Each rule does a step in both, and compares what the store answers."""

    def __init__(self, store: Store, runner: asyncio.Runner, seen: Counter[str]) -> None:
        super().__init__()
        self.store, self.redis, self.run, self.seen = store, store.redis, runner.run, seen
        self.model = ReferenceModel()
        self.numbers = itertools.count(1)
        seen["steps"] -= 3  # looks before the first step and after the last
        store.redis.flushall()

    # -- what comes in

    @rule(owner=OWNER, lane=LANE, items=ITEMS, key=KEY, fingerprint=FINGERPRINT, hook=st.booleans())
    def submit(self, *, owner: str, lane: Lane, items: int, key: bytes, fingerprint: bytes, hook: bool) -> None:
        job = ModelJob(self.new_id(owner), owner, lane, key, hook, fingerprint=fingerprint if key else b"")
        self.enqueue(job, self.new_chunk(job, items))

    @rule(owner=OWNER, lane=LANE, key=KEY, hook=st.booleans(), seals_itself=st.sampled_from([False, True, True]))
    def open(self, *, owner: str, lane: Lane, key: bytes, hook: bool, seals_itself: bool) -> None:
        job = ModelJob(self.new_id(owner), owner, lane, key, hook, state=JobState.OPEN, seals_itself=seals_itself)
        job.part = Part(job.id, owner, lane, 60)
        self.enqueue(job, None)

    @precondition(lambda self: self.were_open())
    @rule(pick=PICK, items=ITEMS, how=st.sampled_from(["next", "repeated", "by a rival", "too many"]))
    def add(self, *, pick: int, items: int, how: str) -> None:
        begun = [job for job in self.were_open() if job.state is JobState.OPEN and job.chunks]
        job = picked(pick, self.were_open() if how == "next" or not begun else begun)
        items = JOB_ITEMS_MAX if how == "too many" else items
        part, chunk, before = job.part, self.new_chunk(job, items), len(job.chunks)
        assert part is not None
        part.chunks = before
        if how == "repeated" and before:
            part.chunks -= 1  # as if no answer had come
        if how == "by a rival" and before:
            part = Part(job.id, job.owner, job.lane, 60, chunks=before)

        refusal = self.refusal_of_parts(job)
        if refusal is None and job.state is not JobState.OPEN:
            refusal = JobSealed
        if refusal is None and part is not job.part:
            refusal = IdempotencyInProgress
        if refusal is None and part.chunks == before:
            refusal = UploadTooLarge if job.total + items > JOB_ITEMS_MAX else self.refusal_of_quota(job, items)
            if refusal is None:
                job.chunks.append(chunk)
        elif refusal is None:
            self.seen["repeated add"] += 1
        if part is not job.part:
            self.ask(self.store.open_jobs.begin(part), refusal)
        self.ask(self.store.open_jobs.add(part, chunk.submitted(), bytes(16)), refusal)

    @precondition(lambda self: self.were_open())
    @rule(pick=PICK, fingerprint=st.sampled_from([b"", b"f" * 16]))
    def seal(self, *, pick: int, fingerprint: bytes) -> None:
        job = picked(pick, self.were_open())
        refusal = self.refusal_of_parts(job)
        if job.state is JobState.OPEN and not job.chunks:
            refusal = JobEmpty
        self.ask(self.store.open_jobs.seal(job.id, job.owner, fingerprint=fingerprint), refusal)
        if job.state is JobState.OPEN and refusal is None:
            job.fingerprint = fingerprint
            self.model.seal(job)

    # -- workers

    @rule(turn=st.integers(0, 7), items=WANTED, bulk=WANTED, size=st.sampled_from([60, 1 << 20]))
    def claim(self, *, turn: int, items: int, bulk: int, size: int) -> None:
        token = owner_token(len(self.model.leases))
        waiting = {chunk for chunk in self.model.waiting() if not chunk.place.startswith(keys.LEASED_CHUNKS)}
        wanted = {Lane.INTERACTIVE: items, Lane.BULK: bulk}
        lease = self.store.leases.claim(MODEL, token, items_max=items, bulk_items_max=bulk, bytes_max=size, turn=turn)
        chunks = [self.model.chunk(claimed.chunk_ref) for claimed in lease.chunks]

        assert bool(chunks) == any(bulk if it.place == SUSPECTS else wanted[it.job.lane] for it in waiting)
        assert waiting >= set(chunks)
        assert lease.more or waiting == set(chunks)
        assert lease.chunks == [
            ClaimedChunk(it.chunk_ref, 5, it.failure_counts, it.progress, it.upload) for it in chunks
        ]
        if lease.suspect:
            assert [chunk.place for chunk in chunks] == [SUSPECTS]
            self.seen["suspect run"] += 1
        elif chunks:
            lane = Lane.BULK if lease.bulk else Lane.INTERACTIVE
            assert {chunk.place for chunk in chunks} <= {ready(lane, owner) for owner in OWNERS}
            assert len(chunks) == 1 or sum(it.chunk_ref.items for it in chunks) <= wanted[lane]
            assert len(chunks) == 1 or sum(it.chunk_ref.upload_bytes for it in chunks) <= size
        self.model.claim(lease)

    @precondition(lambda self: self.model.leases or self.model.waiting())
    @rule(pick=PICK, late=RARELY, at=st.sampled_from([None, None, -1, 0, 1]), progress=st.binary(max_size=9))
    def renew(self, *, pick: int, late: bool, at: int | None, progress: bytes) -> None:
        lease = self.lease(pick, late=late)
        progress = progress if len(lease.held) == 1 else b""  # it is of suspects, which run alone
        assert self.store.leases.renew(lease.token, at_item=at, progress=progress) == bool(lease.held)
        if lease.held:
            lease.reached = lease.reached if at is None else at
            if progress and lease.held[0].waits:
                lease.held[0].progress = progress

    @precondition(lambda self: self.model.leases or self.model.waiting())
    @rule(pick=PICK, late=RARELY, first=st.integers(0, 2), good=st.tuples(*[st.booleans()] * 4), kept=st.binary())
    def finish(self, *, pick: int, late: bool, first: int, good: tuple[bool], kept: bytes) -> None:
        """Of some leases all at once, of others their last chunks first. A chunk may be named twice."""
        lease = self.lease(pick, late=late)
        self.finish_chunks(lease, [*lease.chunks[first:], lease.chunks[-1]], good, kept)

    @precondition(lambda self: self.model.leases or self.model.waiting())
    @rule(pick=PICK, other=PICK)
    def finish_with_any_token(self, *, pick: int, other: int) -> None:
        self.finish_chunks(self.lease(pick, late=True), self.lease(other, late=True).chunks)

    @precondition(lambda self: self.model.leases or self.model.waiting())
    @rule(
        pick=PICK,
        late=RARELY,
        why=st.sampled_from([RETURNED, ItemCode.WORKER_CRASHED, ItemCode.WORKER_CRASHED, ItemCode.TIMEOUT]),
    )
    def give_back_or_crash(self, *, pick: int, late: bool, why: str) -> None:
        lease = self.lease(pick, late=late)
        assert self.store.leases.release(lease.token, why) == self.model.release(lease, why)

    @precondition(lambda self: self.model.waiting())
    @rule(pick=PICK, renewed=st.booleans())
    def lose(self, *, pick: int, renewed: bool) -> None:
        lease = self.lease(pick)
        self.store.expire_lease(lease.lease)
        ((token, end),) = self.store.leases.overdue(100).items()
        assert token == lease.token
        if renewed:
            self.seen["renewed in time"] += 1
            assert self.store.leases.renew(token)
            assert self.store.leases.release(token, WORKER_LOST, seen=end) == 0
        else:
            assert self.store.leases.release(token, WORKER_LOST, seen=end) == self.model.release(lease, WORKER_LOST)

    # -- ends of jobs

    @precondition(lambda self: self.model.jobs)
    @rule(pick=PICK, delete=st.booleans(), stranger=RARELY)
    def cancel_or_delete(self, *, pick: int, delete: bool, stranger: bool) -> None:
        job = picked(pick, self.model.jobs)
        change = self.store.jobs.delete if delete else self.store.jobs.cancel
        if stranger:
            self.ask(change(job.id, "mallory"), JobNotFound)
            return
        self.ask(change(job.id, job.owner), JobExpired if job.gone else None)
        if delete:
            self.model.forget(job)
        elif job.live:
            self.model.end(job, JobState.CANCELED)

    @rule(pick=PICK, what=st.sampled_from(["expire", "open", "queue", "queue"]))
    def pass_time(self, *, pick: int, what: str) -> None:
        if what == "expire":
            self.expire(self.model.ended[: pick % 8])
        elif what == "open" and self.model.open():
            self.pass_open_deadline(picked(pick, self.model.open()))
        elif what == "queue" and self.model.waiting():
            self.pass_queue_deadline(picked(pick, self.model.waiting()).job)
        self.sweep()

    def expire(self, jobs: list[ModelJob]) -> None:
        for job in jobs:
            if not job.gone:
                self.redis.hincrby(job_key(job.id), keys.FIELDS["ended_ms"], -OVER_MS)
                self.model.forget(job)
                self.seen["expired"] += 1

    def pass_open_deadline(self, job: ModelJob) -> None:
        self.redis.zadd(keys.OPEN_DEADLINES, {job.id: 1})
        if job.seals_itself and job.chunks:
            self.seen["sealed itself"] += 1
            self.model.seal(job)
        else:
            self.model.end(job, JobState.CANCELED)

    def pass_queue_deadline(self, job: ModelJob) -> None:
        """It ends a job of which a chunk is the next in its queue, and no other."""
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
        wanted = {upload_key(chunk.job.id, chunk.chunk_ref.chunk) for chunk in self.model.waiting()}
        assert set(self.redis.keys(keys.UPLOAD + "*")) == wanted

    # -- what both must show

    @invariant()
    def look(self) -> None:
        self.seen["steps"] += 1
        self.items_are_as_modeled()
        self.each_chunk_that_waits_stands_in_one_place()
        self.counters_are_right()
        self.whatever_leads_to_a_job_is_there()

    def items_are_as_modeled(self) -> None:
        for job, (found, items) in zip(self.model.jobs, self.run(self.read_all()), strict=True):
            assert (found is None) == job.gone
            if found is not None:
                succeeded, failed = job.count(ItemState.SUCCEEDED), job.count(ItemState.FAILED)
                assert (found.state, found.total, found.chunks) == (job.state, job.total, len(job.chunks))
                assert (found.succeeded, found.failed, found.failure_code) == (succeeded, failed, job.failure_code)
                assert items == job.shown()

    def each_chunk_that_waits_stands_in_one_place(self) -> None:
        names = self.redis.keys()
        queues = [name for name in names if name.startswith((keys.READY.encode(), SUSPECTS.encode()))]
        sets = [name for name in names if name.startswith(keys.LEASED_CHUNKS.encode())]
        rings = [f"{keys.ROTATION}{MODEL}:{LANE_CODE[lane].decode()}" for lane in Lane]
        ask = self.redis.pipeline(transaction=False)
        for name in [*rings, *queues]:
            ask.lrange(name, 0, -1)
        for name in sets:
            ask.smembers(name)
        interactive, bulk, *replies = ask.execute()
        found = [
            (ChunkRef.unpack(entry), name.decode())
            for name, entries in zip(queues + sets, replies, strict=True)
            for entry in entries
        ]
        places = {entry: place for entry, place in found if self.model.chunk(entry).job.live}

        for lane, ring in zip(Lane, (interactive, bulk), strict=True):
            assert sorted(ring) == [owner.encode() for owner in OWNERS if ready(lane, owner).encode() in queues]
        assert len(dict(found)) == len(found)
        assert places == {chunk.chunk_ref: chunk.place for chunk in self.model.waiting()}

    def counters_are_right(self) -> None:
        uploads = self.redis.keys(keys.UPLOAD + "*")
        there = self.model.there()
        ask = self.redis.pipeline(transaction=False)
        for name in uploads:
            ask.strlen(name)
        for job in there:
            ask.hget(job_key(job.id), keys.FIELDS["record_bytes"])
        ask.hgetall(keys.STATS)
        *replies, stats = ask.execute()
        sizes = dict(zip(uploads, replies, strict=False))
        records = sum(map(int, replies[len(uploads) :]))

        for chunk in self.model.waiting():
            assert sizes[upload_key(chunk.job.id, chunk.chunk_ref.chunk)] == chunk.chunk_ref.upload_bytes
        counted = {
            "accepted": len(self.model.jobs),
            "transitions": self.model.terminal(),
            "uploads": sum(sizes.values()) + keys.UPLOAD_KEY_BYTES * len(sizes),
            "records": records + keys.ENDED_ID_BYTES * sum(job.gone for job in self.model.ended),
            **{f"pending:{owner}": self.model.pending(owner) for owner in OWNERS},
        }
        assert {name: int(stats.get(name.encode(), 0)) for name in counted} == counted

    def whatever_leads_to_a_job_is_there(self) -> None:
        there, held = self.model.there(), self.model.held()
        ask = self.redis.pipeline(transaction=False)
        for name in (
            keys.LEASES,
            keys.OPEN_DEADLINES,
            keys.WEBHOOKS_DUE,
            *(keys.OWNER_JOBS + owner for owner in OWNERS),
        ):
            ask.zrange(name, 0, -1)
        ask.lrange(keys.ENDED, 0, -1)
        ask.hgetall(keys.SUSPECT_ITEM)
        ask.keys(keys.IDEMPOTENCY_KEY + "*")
        leases, opened, hooks, *owned, ended, reached, keyed = ask.execute()

        assert set(leases) == {lease.token.encode() for lease in held}
        assert set(opened) == {job.id for job in self.model.open()}
        assert set(hooks) == {job.id for job in there if job.hook and not job.live}
        assert owned == [[job.id for job in there if job.owner == owner] for owner in OWNERS]
        assert ended == [job.id for job in self.model.ended]
        assert reached == {it.token.encode(): b"%d" % it.reached for it in held if it.reached is not None}
        assert set(keyed) == {idempotency_key_name(owner, key) for owner, key in self.model.keyed}

    def teardown(self) -> None:
        """When all is drained and its time is over, nothing is left."""
        if sys.exception() is not None:  # of the step that failed
            return
        for job in self.model.open():
            self.pass_open_deadline(job)
        self.sweep()
        for lease in self.model.held():
            assert self.store.leases.release(lease.token, RETURNED) == self.model.release(lease, RETURNED)
        while self.model.waiting():
            self.claim(turn=0, items=8, bulk=8, size=1 << 20)
            self.finish_chunks(self.model.leases[-1], self.model.leases[-1].chunks)
        self.look()
        assert self.model.terminal() == sum(job.total for job in self.model.jobs)
        self.expire(self.model.ended)
        self.sweep()
        self.look()
        assert set(self.redis.keys()) <= {keys.STATS.encode()}

    # -- how

    def ask(self, coroutine: Coroutine[Any, Any, T], refusal: type[DarkroomError] | None = None) -> T | None:
        """The answer, which must be the refusal if one is given."""
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
        submission.seals_itself = job.seals_itself
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
        self, lease: ModelLease, chunks: list[ModelChunk], good: tuple[bool, ...] = (True,) * 4, kept: bytes = b""
    ) -> None:
        done, expected = list[FinishedChunk](), 0
        for chunk in chunks:
            outcomes: list[Outcome] = [
                [Prediction(next(self.numbers) % 65536, 0.5)] if good[at] else Failure(ItemCode.CORRUPT_IMAGE)
                for at in range(chunk.chunk_ref.items)
            ]
            succeeded = sum(good[: chunk.chunk_ref.items])
            images = pack_retained([(0, kept)]) if kept and not good[0] else b""
            done.append(FinishedChunk(chunk.chunk_ref, succeeded, pack_outcomes(f"{MODEL}@1", outcomes), images))
            self.seen["refused finish"] += chunk.waits and chunk not in lease.held
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
        """One that is held; `late`: any, and most are over."""
        if not self.model.held() and self.model.waiting():
            self.claim(turn=pick % 8, items=8, bulk=8, size=1 << 20)
        return picked(pick, self.model.leases if late else self.model.held() or self.model.leases)

    def heads(self) -> Iterator[ModelChunk]:
        """The next chunk of each queue."""
        for name in [SUSPECTS.encode(), *self.redis.keys(keys.READY + "*")]:
            chunks = (self.model.chunk(ChunkRef.unpack(entry)) for entry in self.redis.lrange(name, 0, -1))
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


def picked(pick: int, among: Iterable[T]) -> T:
    """One of the latest, mostly: there the most is going on."""
    latest = list(among)[::-1]
    return latest[pick % (len(latest) if pick % 4 == 0 else min(len(latest), 4))]


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture
def own_store(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Store]:
    """A store whose leases last, with a server that waits for no disk."""
    with Valkey(tmp_path) as server, server.client as client:
        client.config_set("appendonly", "no")
        settings = StoreSettings(redis_url=server.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
        with closing(LeaseStore(settings, lease_seconds=3600, timeout_seconds=5)) as leases:
            store_client = runner.run(opened(settings))
            store = Store(store_client, leases, client)
            store.submitter = Submitter(store_client, store.upload_budget, owner_pending_items_max=QUOTA)
            store.open_jobs = OpenJobParts(
                store_client, store.upload_budget, OpenJobLimits(QUOTA, JOB_ITEMS_MAX, 1, 30)
            )
            yield store
            runner.run(store_client.close())


async def opened(settings: StoreSettings) -> StoreClient:
    store_client = open_store_client(settings)
    await store_client.ready()
    return store_client


def test_the_store_does_what_its_model_does(own_store: Store, runner: asyncio.Runner) -> None:
    """What hypothesis draws depends on all the code that is loaded: it walks until it has met each event often."""
    seen = Counter[str]()

    def rare() -> list[str]:
        return [f"{what}: {seen[what]}" for what in TO_BE_SEEN if seen[what] < SEEN_MIN]

    for walk in range(WALKS_MAX):

        @hypothesis.seed(20 + walk)
        def machine() -> StoreMachine:
            return StoreMachine(own_store, runner, seen)

        run_state_machine_as_test(
            machine,
            settings=hypothesis.settings(
                max_examples=EXAMPLES,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                phases=(hypothesis.Phase.generate, hypothesis.Phase.shrink),
                suppress_health_check=list(hypothesis.HealthCheck),
            ),
        )
        if seen["steps"] >= STEPS_MIN and not rare():
            break

    assert seen["steps"] >= STEPS_MIN
    assert rare() == []
