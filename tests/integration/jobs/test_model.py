"""The store's state machine against a simple model, step by step, on a real server."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from jobs import keys
from jobs.errors import (
    DarkroomError,
    IdempotencyInProgress,
    IdempotencyKeyReused,
    ItemCode,
    JobEmpty,
    JobEnded,
    JobExpired,
    JobNotFound,
    JobSealed,
)
from jobs.leases import RETURNED, WORKER_LOST, FinishedChunk, LeaseStore
from jobs.open_jobs import Part
from jobs.records import Entry, Failure, ItemState, JobState, Lane, Outcome, pack_outcomes, unpack_upload
from jobs.rows import job_key
from jobs.settings import StoreSettings
from jobs.submit import Earlier, Submission
from tests.conftest import open_link
from tests.support.model import Model, ModelChunk, ModelJob
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import COAT, MODEL, Store, finished, make_chunk

EXAMPLES, STEPS, STEPS_LEAST = 250, 100, 20_000
OWNERS = ("alice", "bob")
KEYS = (b"", b"", b"key-1", b"key-2")
BAD: Outcome = Failure(ItemCode.NOT_AN_IMAGE)
CODE = {Lane.INTERACTIVE: "i", Lane.BULK: "b"}

owners = st.sampled_from(OWNERS)
lanes = st.sampled_from(Lane)
which = st.integers(0, 1 << 30)  # one of what there is, counted modulo its number
few = st.integers(1, 4)


class StoreMachine(RuleBasedStateMachine):
    """Every rule does one thing to the store and to the model, and compares what the store answers."""

    store: Store
    runner: asyncio.Runner
    steps = 0

    def __init__(self) -> None:
        super().__init__()
        self.store.redis.flushall()
        self.model = Model()
        self.parts = dict[bytes, Part]()
        self.claims = list[tuple[str, Entry, ModelChunk]]()
        self.serial = 0

    def next(self) -> int:
        self.serial += 1
        return self.serial

    def run_(self, work: Any) -> Any:
        """What an asynchronous call returns, or the error that it raises."""
        try:
            return self.runner.run(work)
        except DarkroomError as error:
            return type(error)

    # -- the API's side

    @rule(owner=owners, lane=lanes, count=few, key=st.sampled_from(KEYS), content=st.integers(0, 1))
    def submit(self, owner: str, lane: Lane, count: int, key: bytes, content: int) -> None:
        chunk = make_chunk([b"%d" % self.next() for _ in range(count)], 0)
        submission = self._submission(owner, lane, key)
        submission.chunk, submission.fingerprint = chunk, b"content-%d" % content if key else b""
        answer = self.run_(self.store.submitter.enqueue(submission))
        first = self.model.keyed.get((owner, key)) if key else None
        if first is not None and first.fingerprint:
            same = first.fingerprint == submission.fingerprint
            assert answer == (Earlier(first.id, first.fingerprint) if same else IdempotencyKeyReused)
        elif first is not None and first.live:
            assert answer is IdempotencyInProgress
        else:
            assert isinstance(answer, int), answer
            job = self._accepted(submission)
            job.chunks.append(ModelChunk(job, 0, count, chunk.upload_bytes))

    @rule(owner=owners, lane=lanes, key=st.sampled_from(KEYS), seals_itself=st.booleans())
    def open_job(self, owner: str, lane: Lane, key: bytes, seals_itself: bool) -> None:  # noqa: FBT001
        submission = self._submission(owner, lane, key)
        submission.seals_itself = seals_itself
        first = self.model.keyed.get((owner, key)) if key else None
        answer = self.run_(self.store.submitter.enqueue(submission, open_seconds=3600))
        if first is not None and first.fingerprint:
            assert answer == Earlier(first.id, first.fingerprint)
        elif first is not None and first.live:
            assert answer is IdempotencyInProgress
        else:
            assert isinstance(answer, int), answer
            job = self._accepted(submission)
            job.open, job.seals_itself = True, seals_itself
            self.parts[job.id] = Part(job.id, owner, lane, 3600)

    @precondition(lambda self: self.parts)
    @rule(at=which, count=few, again=st.booleans())
    def add(self, at: int, count: int, again: bool) -> None:  # noqa: FBT001
        """Again: an add whose answer was lost is repeated."""
        job, part = self._part(at)
        chunk = make_chunk([b"%d" % self.next() for _ in range(count)], 0)
        if again and part.chunks and job.open and job.live:
            before = replace(part, chunks=part.chunks - 1)
            assert self.run_(self.store.open_jobs.add(before, chunk, bytes(16))) is None
            return
        answer = self.run_(self.store.open_jobs.add(part, chunk, bytes(16)))
        if job.live and job.open:
            assert answer is None
            job.chunks.append(ModelChunk(job, len(job.chunks), count, chunk.upload_bytes))
        else:
            assert answer is self._refusal(job)

    @precondition(lambda self: self.parts)
    @rule(at=which)
    def seal(self, at: int) -> None:
        job, _ = self._part(at)
        answer = self.run_(self.store.open_jobs.seal(job.id, job.owner))
        if not job.gone and job.ended is not JobState.CANCELED and not job.open:
            assert answer is None, "it is sealed already"
        elif not (job.live and job.open):
            assert answer is self._refusal(job)
        elif not job.chunks:
            assert answer is JobEmpty
        else:
            assert answer is None
            job.open = False
            job.settle()

    @precondition(lambda self: self.model.jobs)
    @rule(at=which, owner=owners)
    def cancel(self, at: int, owner: str) -> None:
        job = self._job(at)
        answer = self.run_(self.store.jobs.cancel(job.id, owner))
        assert answer is self._no_access(job, owner)
        if answer is None and job.live:
            self.model.end(job, JobState.CANCELED)

    @precondition(lambda self: self.model.jobs)
    @rule(at=which, owner=owners)
    def delete(self, at: int, owner: str) -> None:
        job = self._job(at)
        answer = self.run_(self.store.jobs.delete(job.id, owner))
        assert answer is self._no_access(job, owner)
        if answer is None:
            self.model.forget(job)

    @precondition(lambda self: self.model.jobs)
    @rule(at=which, owner=owners)
    def read(self, at: int, owner: str) -> None:
        job = self._job(at)
        found = self.run_(self.store.jobs.get(job.id, owner))
        if refused := self._no_access(job, owner):
            assert found is refused
        else:
            self._same(job)

    # -- a worker's side

    @rule(items=st.integers(1, 8), turn=st.integers(0, 7))
    def claim(self, items: int, turn: int) -> None:
        token = f"boot|{self.next()}|1|0"
        lease = self.store.claim(token, items=items, turn=turn)
        chunks = list[ModelChunk]()
        for claimed in lease.chunks:
            chunk = self.model.find(claimed.entry.job_id, claimed.entry.chunk)
            assert chunk.job.live
            assert chunk.place == ("suspect" if lease.suspect else "ready")
            assert (claimed.entry.items, claimed.entry.upload_bytes) == (chunk.items, chunk.size)
            charges = (claimed.charges.losses, claimed.charges.crashes, claimed.charges.items)
            assert charges == (chunk.losses, chunk.crashes, chunk.item_crashes)
            assert len(unpack_upload(claimed.upload or b"", chunk.items)) == chunk.items
            assert lease.suspect or lease.bulk == (chunk.job.lane is Lane.BULK)
            self.claims.append((token, claimed.entry, chunk))
            chunks.append(chunk)
        assert len(chunks) <= 1 or sum(chunk.items for chunk in chunks) <= items
        assert len(chunks) <= 1 or not lease.suspect
        assert chunks or not any(chunk.waits for chunk in self.model.unfinished())
        self.model.claim(token, chunks, suspect=lease.suspect)

    @precondition(lambda self: self.claims)
    @rule(at=which, bad=st.integers(0, 3))
    def finish(self, at: int, bad: int) -> None:
        """Of any claim there ever was: late ones and repeats are refused."""
        token, entry, chunk = self.claims[at % len(self.claims)]
        outcomes = [BAD] * min(bad, chunk.items) + [COAT] * (chunk.items - min(bad, chunk.items))
        states = [ItemState.FAILED if it is BAD else ItemState.SUCCEEDED for it in outcomes]
        done = FinishedChunk(entry, states.count(ItemState.SUCCEEDED), pack_outcomes(f"{MODEL}@1", outcomes))
        assert self.store.leases.finish(token, [done]) == self.model.finish(token, chunk, states)

    @precondition(lambda self: self.model.leases)
    @rule(at=which, reached=st.none() | st.integers(-1, 2))
    def renew(self, at: int, reached: int | None) -> None:
        token = self._token(at)
        assert self.store.leases.renew(token, at_item=reached)
        if reached is not None:
            self.model.reached[token] = reached

    @precondition(lambda self: self.claims)
    @rule(at=which)
    def renew_any(self, at: int) -> None:
        token, *_ = self.claims[at % len(self.claims)]
        assert self.store.leases.renew(token) == (token in self.model.leases)

    @precondition(lambda self: self.claims)
    @rule(at=which, why=st.sampled_from([RETURNED, ItemCode.WORKER_CRASHED, ItemCode.TIMEOUT]))
    def lapse(self, at: int, why: str) -> None:
        token, *_ = self.claims[at % len(self.claims)]
        assert self.store.leases.lapse(token, why) == self.model.lapse(token, why)

    @precondition(lambda self: self.model.leases)
    @rule(at=which)
    def lose(self, at: int) -> None:
        """Nobody renews a lease; a reaper that saw another end of it does nothing."""
        token = self._token(at)
        self.store.redis.zadd(keys.LEASES, {token: 1})
        assert self.store.leases.overdue(100) == {token: "1"}
        assert self.store.leases.lapse(token, WORKER_LOST, seen="2") == 0
        assert self.store.leases.lapse(token, WORKER_LOST, seen="1") == self.model.lapse(token, WORKER_LOST)

    # -- time and housekeeping

    @precondition(lambda self: any(job.open and job.live for job in self.model.jobs))
    @rule(at=which)
    def let_the_deadline_of_an_open_job_pass(self, at: int) -> None:
        found = [job for job in self.model.jobs if job.open and job.live]
        job = found[at % len(found)]
        self.store.redis.zadd(keys.OPEN, {job.id: 1})
        self.sweep()
        if job.seals_itself and job.chunks:
            job.open = False
            job.settle()
        else:
            self.model.end(job, JobState.CANCELED)

    @precondition(lambda self: self.serial % 5 == 0)  # or no job would live long
    @rule()
    def let_the_time_of_ended_jobs_pass(self) -> None:
        for job in self.model.jobs:
            if job.ended and not job.gone:
                self.store.redis.hset(job_key(job.id), "e", 1)
        self.sweep()
        for job in self.model.jobs:
            if job.ended and not job.gone:
                self.model.forget(job)

    @precondition(lambda self: self.serial % 7 == 0)
    @rule()
    def let_the_deadline_of_the_queue_pass(self) -> None:
        """Jobs of which a chunk waits are given up; where all are held, they go on."""
        for job in self.model.jobs:
            if job.live:
                self.store.redis.hset(job_key(job.id), "a", 1)
        self.sweep()
        for job in self.model.jobs:
            if job.live and any(chunk.waits for chunk in job.chunks):
                state = JobState.COMPLETED if job.succeeded else JobState.FAILED
                self.model.end(job, state, gave_up=True)
        now = int(self.store.redis.time()[0]) * 1000
        for job in self.model.jobs:
            if job.live:
                self.store.redis.hset(job_key(job.id), "a", now)

    @rule()
    def sweep(self) -> None:
        self.run_(self.store.jobs.sweep([MODEL]))

    @rule()
    def sweep_and_look(self) -> None:
        """What ended jobs have left is gone, and nothing else."""
        self.sweep()
        assert self.store.stat("uploads") == self.model.upload_bytes()
        there = {keys.UPLOAD.encode() + it.job.id + it.number.to_bytes(4, "big") for it in self.model.unfinished()}
        assert set(self.store.redis.keys(keys.UPLOAD + "*")) == there
        assert {key[2:] for key in self.store.redis.keys(keys.JOB + "*")} == {
            job.id for job in self.model.jobs if not job.gone
        }

    # -- always

    @invariant()
    def the_counters_are_right(self) -> None:
        type(self).steps += 1
        assert self.store.stat("transitions") == self.model.transitions
        for owner in OWNERS:
            assert self.store.stat(f"pending:{owner}") == self.model.pending(owner)

    @invariant()
    def each_unfinished_chunk_is_in_one_place(self) -> None:
        redis = self.store.redis
        pipeline = redis.pipeline(transaction=False)
        queues = [f"{keys.READY}{MODEL}:{CODE[lane]}:{owner}" for lane in Lane for owner in OWNERS]
        for queue in (*queues, keys.SUSPECTS + MODEL):
            pipeline.lrange(queue, 0, -1)
        tokens = list(self.model.leases)
        for token in tokens:
            pipeline.smembers(keys.LEASE + token)
        found = pipeline.execute()
        places = [*["ready"] * len(queues), "suspect", *tokens]
        there = sorted((entry, place) for entries, place in zip(found, places, strict=True) for entry in entries)
        live = {job.id for job in self.model.jobs if job.live}
        wanted = sorted(
            (Entry(it.job.id, it.number, it.items, it.size).pack(), it.place) for it in self.model.unfinished()
        )
        assert [(entry, place) for entry, place in there if entry[:16] in live] == wanted
        assert set(redis.zrange(keys.LEASES, 0, -1)) == {token.encode() for token in tokens}

    def teardown(self) -> None:
        """Everything ends, and nothing is left."""
        for token in list(self.model.leases):
            assert self.store.leases.lapse(token, RETURNED) == self.model.lapse(token, RETURNED)
        for job_id in self.parts:
            self.run_(self.store.open_jobs.seal(job_id, self.parts[job_id].owner))
        while (lease := self.store.claim("last", turn=self.next() % 2)).chunks:
            done = self.store.leases.finish("last", finished(lease))
            assert done == sum(claimed.entry.items for claimed in lease.chunks)
            for claimed in lease.chunks:
                chunk = self.model.find(claimed.entry.job_id, claimed.entry.chunk)
                chunk.place, chunk.states = "done", [ItemState.SUCCEEDED] * chunk.items
        for job in self.model.jobs:
            if job.open and job.live and not job.chunks:
                self.run_(self.store.jobs.cancel(job.id, job.owner))
                job.ended = JobState.CANCELED
            job.open = False
            job.settle()
            if not job.gone:
                self._same(job)
        accepted = sum(len(job.items()) for job in self.model.jobs)
        assert self.store.stat("transitions") == accepted, "one terminal state for each image, whatever happened"
        for job in self.model.jobs:
            self.store.redis.hset(job_key(job.id), "e", 1) if not job.gone else None
        self.sweep()
        for name in ("uploads", "records", *(f"pending:{owner}" for owner in OWNERS)):
            assert self.store.stat(name) == 0, name
        assert self.store.redis.keys(f"{keys.JOB}*") + self.store.redis.keys(f"{keys.UPLOAD}*") == []
        assert self.store.redis.keys(f"{keys.KEYED}*") + self.store.redis.keys(f"{keys.LEASE}*") == []
        assert self.store.redis.exists(keys.ENDED, keys.OPEN, keys.TRASH, keys.LEASES, keys.SUSPECT_AT) == 0

    # -- helpers

    def _submission(self, owner: str, lane: Lane, key: bytes) -> Submission:
        return Submission(self.run_(self.store.submitter.new_id(owner)), owner, MODEL, lane, 5, key=key)

    def _accepted(self, submission: Submission) -> ModelJob:
        job = ModelJob(
            submission.id,
            submission.owner,
            submission.lane,
            key=submission.key,
            fingerprint=submission.fingerprint,
        )
        self.model.jobs.append(job)
        if job.key:
            self.model.keyed[job.owner, job.key] = job
        return job

    def _job(self, at: int) -> ModelJob:
        return self.model.jobs[at % len(self.model.jobs)]

    def _token(self, at: int) -> str:
        return list(self.model.leases)[at % len(self.model.leases)]

    def _part(self, at: int) -> tuple[ModelJob, Part]:
        part = list(self.parts.values())[at % len(self.parts)]
        (job,) = (job for job in self.model.jobs if job.id == part.job_id)
        return job, part

    def _refusal(self, job: ModelJob) -> type[DarkroomError]:
        if job.gone:
            return JobNotFound
        return JobEnded if job.ended is JobState.CANCELED else JobSealed

    def _no_access(self, job: ModelJob, owner: str) -> type[DarkroomError] | None:
        if owner != job.owner:
            return JobNotFound
        return JobExpired if job.gone else None

    def _same(self, job: ModelJob) -> None:
        """The store shows what the model says."""

        async def states() -> list[ItemState]:
            return [item.state async for _, _, item in self.store.jobs.items(found)]

        found = self.runner.run(self.store.jobs.get(job.id, job.owner))
        assert found.state is (job.state or found.state)
        assert found.state.ended == (job.ended is not None)
        assert self.runner.run(states()) == job.items()
        assert found.total == len(job.items())


@pytest.fixture(scope="module")
def machine(_valkey: Valkey) -> Iterator[type[StoreMachine]]:
    """On a server that does not wait for its disk: what is looked for here has nothing to do with it."""
    settings = StoreSettings(redis_url=_valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    with asyncio.Runner() as runner, _valkey.client as client:
        client.config_set("appendonly", "no")
        leases = LeaseStore(settings, lease_seconds=600, timeout_seconds=5)

        async def opened() -> Store:
            return Store(open_link(settings), leases, client)

        store = runner.run(opened())
        StoreMachine.store, StoreMachine.runner = store, runner
        yield StoreMachine
        runner.run(store.link.close())
        leases.close()
        client.flushall()
        client.config_set("appendonly", "yes")


def test_the_store_does_what_a_simple_model_does(machine: type[StoreMachine]) -> None:
    machine.steps = 0
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert machine.steps >= STEPS_LEAST
