"""Everybody at work on the store at once, at random: what holds afterwards, whoever came first."""

import asyncio
import itertools
import random
import threading
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field, replace

from jobs.codec import pack_outcomes
from jobs.errors import JobEmpty, JobEnded, JobExpired, JobNotFound
from jobs.item_codes import ItemCode
from jobs.records import Failure, Item, ItemState, Lane, Outcome, Prediction
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_workers.leases import RETURNED, WORKER_LOST, FinishedChunk, Lease, LeaseStore
from jobs.store.job_hash import job_key
from tests.conftest import open_store_client
from tests.support.processes import Valkey
from tests.support.store import MODEL, WORKER_ID, Store, make_chunk, owner_token

OWNERS = ("alice", "bob")
JOBS_EACH = 800
CLAIMERS, SUBMITTERS = 4, 2
OVER_MS = (86_400 + 60) * 1000  # longer than a result is kept


@dataclass
class Told:
    """What the store has told those who work on it."""

    accepted: dict[bytes, str] = field(default_factory=dict)
    """Job to owner."""
    items: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    written: dict[tuple[bytes, int], list[list[Outcome]]] = field(default_factory=lambda: defaultdict(list))
    """What finishes that were taken gave each chunk."""
    lapsed: set[str] = field(default_factory=set)
    """Tokens of leases that somebody has ended."""
    refused: int = 0
    """Finishes that were not taken."""
    seen: dict[tuple[bytes, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The terminal states and outcomes in which each item was read."""
    deleted: set[bytes] = field(default_factory=set)


class World:
    def __init__(self, settings: StoreSettings, valkey: Valkey) -> None:
        self.settings, self.valkey = settings, valkey
        self.told = Told()
        self.tags = itertools.count()
        self.over = threading.Event()

    @contextmanager
    def store(self) -> Iterator[tuple[Store, asyncio.Runner]]:
        """For one thread. Its leases last until somebody ends them."""
        leases = LeaseStore(self.settings, lease_seconds=3600, timeout_seconds=5)
        with asyncio.Runner() as runner, closing(leases), self.valkey.client as client:
            store_client = runner.run(self._link())
            yield Store(store_client, leases, client), runner
            runner.run(store_client.close())

    async def _link(self) -> StoreClient:
        return open_store_client(self.settings)

    # -- those who work, each with a random generator of its own

    def submit(self, rng: random.Random) -> None:
        with self.store() as (store, runner):
            for number in range(JOBS_EACH):
                owner, lane = rng.choice(OWNERS), rng.choice(list(Lane))
                with suppress(JobNotFound, JobEnded, JobExpired):  # by whoever cancels and deletes
                    if rng.random() < 0.3:
                        runner.run(self._submit_parts(store, rng, owner, lane))
                    else:
                        key = number.to_bytes(16, "big") if rng.random() < 0.3 else b""
                        runner.run(self._submit_at_once(store, rng, owner, lane, key))

    async def _submit_at_once(self, store: Store, rng: random.Random, owner: str, lane: Lane, key: bytes) -> None:
        images = [b"image"] * rng.randint(1, 4)
        submission = replace(await store.submission(*images, owner=owner, lane=lane), key=key, fingerprint=key)
        if isinstance(await store.submitter.enqueue(submission), int):
            self.told.accepted[submission.id] = owner
            self.told.items[submission.id] += len(images)

    async def _submit_parts(self, store: Store, rng: random.Random, owner: str, lane: Lane) -> None:
        part = await store.open(owner=owner, lane=lane)
        self.told.accepted[part.job_id] = owner
        first = 0
        for number in range(rng.randint(0, 5)):
            chunk = make_chunk([b"image"] * rng.randint(1, 4), first)
            for _ in range(rng.randint(1, 2)):
                part.chunks = number  # the second time as if no answer had come
                await store.open_jobs.add(part, chunk, bytes(16))
                self.told.items[part.job_id] = first + len(chunk.names)
            first += len(chunk.names)
        try:
            await store.open_jobs.seal(part.job_id, owner)
        except JobEmpty:
            await store.jobs.cancel(part.job_id, owner)

    def work(self, rng: random.Random, number: int) -> None:
        """Claims; then finishes, renews, crashes or gives back, or leaves the lease to whoever takes it."""
        with self.store() as (store, _):
            leases, claims = list[Lease](), 0
            while not self.over.is_set():
                lease = store.claim(
                    owner_token(task_id=str(number), pid=claims), items=rng.choice([1, 4, 16]), turn=claims
                )
                claims += 1
                if lease.chunks:
                    leases.append(lease)
                if leases:
                    self._act(store, rng, rng.choice(leases[-3:]))

    def _act(self, store: Store, rng: random.Random, lease: Lease) -> None:
        match rng.randrange(8):
            case 0:
                store.leases.renew(lease.token, at_item=rng.choice([None, -1, 0]))
            case 1:
                self.release(store, lease.token, rng.choice([RETURNED, ItemCode.WORKER_CRASHED]))
            case _:
                self.finish(store, rng, lease)

    def finish(self, store: Store, rng: random.Random, lease: Lease) -> None:
        """Each finish with a result of its own, by which it is known again."""
        for claimed in lease.chunks:
            good: Outcome = [Prediction(next(self.tags) % 65536, 0.5)]
            outcomes = [
                rng.choice([good, good, Failure(ItemCode.CORRUPT_IMAGE)]) for _ in range(claimed.chunk_ref.items)
            ]
            packed = pack_outcomes(f"{MODEL}@1", outcomes)
            late = lease.token in self.told.lapsed
            taken = store.leases.finish(lease.token, [FinishedChunk(claimed.chunk_ref, outcomes.count(good), packed)])
            assert taken in ({0} if late else {0, claimed.chunk_ref.items})
            if taken:
                self.told.written[claimed.chunk_ref.job_id, claimed.chunk_ref.chunk].append(outcomes)
            else:
                self.told.refused += 1

    def release(self, store: Store, token: str, why: str, *, seen: str = "") -> None:
        if store.leases.release(token, why, seen=seen):
            self.told.lapsed.add(token)

    def reap(self, rng: random.Random) -> None:
        """Takes leases for lost, whoever holds them, and sweeps."""
        with self.store() as (store, _):
            while not self.over.is_set():
                for token in store.leases.tokens_of(WORKER_ID):
                    if rng.random() < 0.2:
                        store.redis.zadd(keys.LEASES, {token: 1}, xx=True)
                for token, end in store.leases.overdue(100).items():
                    self.release(store, token, WORKER_LOST, seen=end)
                store.leases.sweep([MODEL], seconds=0.01)

    def meddle(self, rng: random.Random) -> None:
        """Reads, cancels and deletes."""
        with self.store() as (store, runner):
            while not self.over.is_set():
                if self.told.accepted:
                    job_id, owner = rng.choice(list(self.told.accepted.items())[-20:])
                    with suppress(JobExpired):
                        runner.run(self._meddle(store, rng.randrange(12), job_id, owner))

    async def _meddle(self, store: Store, what: int, job_id: bytes, owner: str) -> None:
        if what == 0:
            await store.jobs.cancel(job_id, owner)
        elif what == 1:
            self.told.deleted.add(job_id)
            await store.jobs.delete(job_id, owner)
        else:
            await self.see(store, job_id, owner)

    async def see(self, store: Store, job_id: bytes, owner: str) -> list[Item]:
        items = [item async for _, _, item in store.jobs.items(await store.get(job_id, owner))]
        for item in items:
            if item.state is not ItemState.PENDING:
                self.told.seen[job_id, item.index].add(f"{item.state} {item.outcome}")
        return items

    def run(self) -> None:
        """Everybody at once, until all is submitted."""
        with ThreadPoolExecutor(CLAIMERS + SUBMITTERS + 2) as pool:
            others = [pool.submit(self.work, random.Random(f"work {n}"), n) for n in range(CLAIMERS)]
            others += [pool.submit(self.reap, random.Random("reap")), pool.submit(self.meddle, random.Random("meddle"))]
            try:
                for submitting in [pool.submit(self.submit, random.Random(f"submit {n}")) for n in range(SUBMITTERS)]:
                    submitting.result(timeout=120)
            finally:
                self.over.set()
            for other in others:
                other.result(timeout=30)

    def drain(self, store: Store) -> None:
        for token in store.leases.tokens_of(WORKER_ID):
            store.leases.release(token, RETURNED)
        for number in itertools.count():
            lease = store.claim(owner_token(number, worker_id="last"))
            self.finish(store, random.Random(number), lease)
            if not lease.more:
                return


def test_whoever_comes_first_each_item_ends_once_and_nothing_is_left(
    store_settings: StoreSettings, valkey: Valkey
) -> None:
    world = World(store_settings, valkey)
    world.run()
    told = world.told
    with world.store() as (store, runner):
        world.drain(store)
        runner.run(store.jobs.sweep([MODEL]))

        assert store.stat("transitions") == sum(told.items.values())
        assert store.stat("uploads") == 0
        assert [store.stat(f"pending:{owner}") for owner in OWNERS] == [0, 0]
        for job_id in told.accepted.keys() - told.deleted:
            items = runner.run(world.see(store, job_id, told.accepted[job_id]))
            job = runner.run(store.get(job_id, told.accepted[job_id]))
            assert job.state.ended
            assert len(items) == job.total == told.items[job_id]
            written = {chunk: told.written[job_id, chunk] for chunk in range(job.chunks)}
            shown = [item.outcome for item in items if item.state is not ItemState.CANCELED]
            assert shown == [outcome for times in written.values() for outcomes in times for outcome in outcomes]
            assert all(item.state is not ItemState.PENDING for item in items)
        assert max(map(len, told.written.values())) == 1, "a chunk was finished twice"
        assert max(map(len, told.seen.values())) == 1, "an item was seen in two terminal states"

        for job_id in told.accepted.keys() - told.deleted:
            store.redis.hincrby(job_key(job_id), keys.FIELDS["ended_ms"], -OVER_MS)
        runner.run(store.jobs.sweep([MODEL]))
        assert store.keys() <= {keys.STATS.encode(), keys.SIGNING_KEY.encode()}
        assert store.stat("records") == 0
    assert min(told.refused, len(told.deleted), len(told.seen)) > 20
