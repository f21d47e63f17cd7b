"""Random steps against a reference model: after each step, the store and the model must show the same state."""

import asyncio
import itertools
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import hypothesis
import pytest
import uvloop
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from jobs.errors import IdempotencyInProgress, JobEmpty, JobExpired, JobNotFound, JobSealed, UploadTooLarge
from jobs.item_codes import ItemCode
from jobs.records import JobState, Lane
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.open_job_parts import OpenJobLimits, OpenJobParts, Part
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_api.submit import Submitter
from jobs.store.for_workers.leases import PAUSED, RETURNED, WORKER_LOST, ClaimedChunk, LeaseStore
from tests.conftest import open_store_client
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.reference.invariants import StoreInvariants
from tests.support.reference.reference_model import ModelJob, ReferenceModel, ready
from tests.support.reference.walk import JOB_ITEMS_MAX, OWNERS, QUOTA, UNSHARED, picked
from tests.support.store import MODEL, Store, owner_token

EXAMPLES, STEPS, STEPS_MIN, WALKS_MAX, SEEN_MIN = 40, 150, 20_000, 16, 20

PICK, ITEMS = st.integers(0, 999), st.integers(1, 4)
RARELY = st.sampled_from([False, False, False, True])
OWNER, LANE = st.sampled_from(OWNERS), st.sampled_from(Lane)
ITEMS_ALLOWED = st.sampled_from([0, 1, 4, 4, 8, 8])
CLAIM_BYTES, SERVING = st.sampled_from([60, 1 << 20]), st.sampled_from([0, 0, 4, 16])
KEY, FINGERPRINT = (st.sampled_from([n * 16 for n in names]) for names in ((b"", b"", b"k", b"l"), (b"f", b"f", b"g")))

TO_BE_SEEN = (
    *("earlier job", "expired", "queue deadline", "refused finish", "renewed in time", "repeated add", "sealed itself"),
    *("accepted by an earlier release", "suspect run", "IdempotencyInProgress", "IdempotencyKeyReused", "JobEmpty"),
    *("JobEnded", "JobExpired", "JobNotFound", "JobSealed", "QuotaExceeded", "DailyQuotaExceeded", "UploadTooLarge"),
    "shared claim",
)


class WorkerSteps(StoreInvariants):
    @rule(turn=st.integers(0, 7), items=ITEMS_ALLOWED, bulk=ITEMS_ALLOWED, size=CLAIM_BYTES, serving=SERVING)
    def claim(self, *, turn: int, items: int, bulk: int, size: int, serving: int = 0) -> None:
        token = owner_token(len(self.model.leases))
        share = self.serve(serving, items)
        waiting = {chunk for chunk in self.model.waiting() if not chunk.place.startswith(keys.LEASED_CHUNKS)}
        items_allowed = {Lane.INTERACTIVE: share, Lane.BULK: bulk}
        limits = {"items_max": items, "unshared_items": UNSHARED, "bulk_items_max": bulk, "bytes_max": size}
        suspects_allowed = bulk and not self.model.keeps_the_last_process(serving)
        lease = self.store.leases.claim(MODEL, token, turn=turn, **limits)
        chunks = [self.model.chunk(claimed.chunk_ref) for claimed in lease.chunks]
        assert bool(chunks) == any(suspects_allowed if it.suspect else items_allowed[it.job.lane] for it in waiting)
        assert waiting >= set(chunks)
        assert lease.more or all(it.suspect and serving for it in waiting - set(chunks))
        assert lease.chunks == [
            ClaimedChunk(it.chunk_ref, 5, it.failure_counts, it.progress, it.upload, it.file) for it in chunks
        ]
        if lease.suspect:
            assert [chunk.suspect for chunk in chunks] == [True]
            self.seen["suspect run"] += 1
        elif chunks:
            lane = Lane.BULK if lease.bulk else Lane.INTERACTIVE
            assert {chunk.place for chunk in chunks} <= {ready(lane, owner) for owner in OWNERS}
            assert len(chunks) == 1 or sum(it.chunk_ref.items for it in chunks) <= items_allowed[lane]
            assert len(chunks) == 1 or sum(it.chunk_ref.upload_bytes for it in chunks) <= size
            self.seen["shared claim"] += share < items and not lease.bulk
        self.model.claim(lease)

    @precondition(lambda self: self.model.leases or self.model.waiting())
    @rule(pick=PICK, late=RARELY, at=st.sampled_from([None, None, PAUSED, -1, 0, 1]), progress=st.binary(max_size=9))
    def renew(self, *, pick: int, late: bool, at: int | None, progress: bytes) -> None:
        lease = self.lease(pick, late=late)
        progress = progress if len(lease.leased) == 1 else b""  # only suspects have progress, and they run alone
        assert self.store.leases.renew(lease.token, at_item=at, progress=progress) == bool(lease.leased)
        if lease.leased:
            lease.reached = lease.reached if at is None else at
            if progress and lease.leased[0].waits:
                lease.leased[0].progress = progress

    @precondition(lambda self: self.model.leases or self.model.waiting())
    @rule(pick=PICK, late=RARELY, first=st.integers(0, 2), good=st.tuples(*[st.booleans()] * 4), retained=st.binary())
    def finish(self, *, pick: int, late: bool, first: int, good: tuple[bool], retained: bytes) -> None:
        """Some leases are finished at once, others with their last chunks first. A chunk may be named twice."""
        lease = self.lease(pick, late=late)
        self.finish_chunks(lease, [*lease.chunks[first:], lease.chunks[-1]], good, retained)

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
    def return_or_crash(self, *, pick: int, late: bool, why: str) -> None:
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


class StoreMachine(WorkerSteps, RuleBasedStateMachine):
    """Each rule takes a step in the store and in the model, and compares the store's reply."""

    def __init__(self, store: Store, runner: asyncio.Runner, seen: Counter[str]) -> None:
        super().__init__()
        self.store, self.redis, self.run, self.seen = store, store.redis, runner.run, seen
        self.model = ReferenceModel()
        self.numbers = itertools.count(1)
        self.spool_sweep = SpoolSweep(store.store_client)
        seen["steps"] -= 3  # invariants are also checked before the first step and after the last
        store.redis.flushall()
        for path in self.spool.glob("*.upload"):
            path.unlink()

    # -- submits

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
            part.chunks -= 1  # as if the reply had been lost
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
                self.add_chunk(job, chunk)
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

    # -- ends of jobs

    @precondition(lambda self: self.model.jobs)
    @rule(pick=PICK, delete=st.booleans(), as_stranger=RARELY)
    def cancel_or_delete(self, *, pick: int, delete: bool, as_stranger: bool) -> None:
        job = picked(pick, self.model.jobs)
        change = self.store.jobs.delete if delete else self.store.jobs.cancel
        if as_stranger:
            self.ask(change(job.id, "mallory"), JobNotFound)
            return
        self.ask(change(job.id, job.owner), JobExpired if job.gone else None)
        if delete:
            self.model.delete(job)
        elif job.live:
            self.model.end(job, JobState.CANCELED)

    @rule(pick=PICK, what=st.sampled_from(["expire", "open", "queue", "queue"]))
    def pass_time(self, *, pick: int, what: str) -> None:
        if what == "expire":
            self.expire(picked(pick // 8, self.model.ended.values())[: pick % 8] if self.model.ended else [])
        elif what == "open" and self.model.open():
            self.pass_open_deadline(picked(pick, self.model.open()))
        elif what == "queue" and self.model.waiting():
            self.pass_queue_deadline(picked(pick, self.model.waiting()).job)
        self.sweep()

    def teardown(self) -> None:
        """After all jobs are drained and expired, the store is empty."""
        if sys.exception() is not None:  # a step failed: report its error
            return
        for job in self.model.open():
            self.pass_open_deadline(job)
        self.sweep()
        for lease in self.model.live_leases():
            assert self.store.leases.release(lease.token, RETURNED) == self.model.release(lease, RETURNED)
        while self.model.waiting():
            self.claim(turn=0, items=8, bulk=8, size=1 << 20)
            self.finish_chunks(self.model.leases[-1], self.model.leases[-1].chunks)
        self.check()
        assert self.model.terminal() == sum(job.total for job in self.model.jobs)
        for ended in self.model.ended.values():
            self.expire(ended)
        self.sweep()
        self.check()
        assert set(self.redis.keys()) <= {keys.STATS.encode(), keys.STORE_ID.encode(), *self.expiring_counters()}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@pytest.fixture
def own_store(runner: asyncio.Runner, tmp_path: Path) -> Iterator[Store]:
    """A store whose leases do not lapse, on a server without persistence."""
    with Valkey(tmp_path) as server, server.client as client:
        client.config_set("appendonly", "no")
        settings = StoreSettings(
            redis_url=server.url, redis_maxmemory_bytes=MAXMEMORY_BYTES, uploads_url=f"file://{tmp_path}"
        )
        with closing(LeaseStore(settings, lease_seconds=3600, timeout_seconds=5)) as leases:
            store_client = runner.run(opened(settings))
            store = Store(store_client, leases, client)
            store.submitter = Submitter(store_client, store.upload_budget, owner_pending_items_max=QUOTA)
            limits = OpenJobLimits(QUOTA, JOB_ITEMS_MAX, 1, 30)
            store.open_jobs = OpenJobParts(store_client, store.upload_budget, limits)
            yield store
            runner.run(store_client.close())


async def opened(settings: StoreSettings) -> StoreClient:
    store_client = open_store_client(settings)
    await store_client.ready()
    await SpoolSweep(store_client).run_once()
    return store_client


def test_the_store_does_what_its_model_does(own_store: Store, runner: asyncio.Runner) -> None:
    """Draws of hypothesis depend on all code that is loaded: the walks go on until each event has occurred often."""
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

    assert (seen["steps"] >= STEPS_MIN, rare()) == (True, [])
