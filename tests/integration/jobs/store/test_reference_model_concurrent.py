"""Random concurrent calls of the store, and the invariants that hold after them in any order of the calls."""

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
OVER_MS = (86_400 + 60) * 1000  # longer than the time to live of a result


@dataclass
class Replies:
    """A record of the store's replies to all threads."""

    accepted: dict[bytes, str] = field(default_factory=dict)
    """The owner of each accepted job."""
    items: dict[bytes, int] = field(default_factory=lambda: defaultdict(int))
    written: dict[tuple[bytes, int], list[list[Outcome]]] = field(default_factory=lambda: defaultdict(list))
    """The outcomes of each chunk, one list for each finish that the store accepted."""
    released: set[str] = field(default_factory=set)
    """Tokens of leases that a release has ended."""
    refused: int = 0
    """How many finishes the store refused."""
    read: dict[tuple[bytes, int], set[str]] = field(default_factory=lambda: defaultdict(set))
    """The terminal states and outcomes that each item was read with."""
    deleted: set[bytes] = field(default_factory=set)


class ConcurrentCalls:
    def __init__(self, settings: StoreSettings, valkey: Valkey) -> None:
        self.settings, self.valkey = settings, valkey
        self.replies = Replies()
        self.tags = itertools.count()
        self.all_submitted = threading.Event()

    @contextmanager
    def store(self) -> Iterator[tuple[Store, asyncio.Runner]]:
        """A store for one thread. Its leases last until they are finished or released."""
        leases = LeaseStore(self.settings, lease_seconds=3600, timeout_seconds=5)
        with asyncio.Runner() as runner, closing(leases), self.valkey.client as client:
            store_client = runner.run(self._client())
            yield Store(store_client, leases, client), runner
            runner.run(store_client.close())

    async def _client(self) -> StoreClient:
        return open_store_client(self.settings)

    # -- threads, each with a random generator of its own

    def submit(self, rng: random.Random) -> None:
        with self.store() as (store, runner):
            for number in range(JOBS_EACH):
                owner, lane = rng.choice(OWNERS), rng.choice(list(Lane))
                with suppress(JobNotFound, JobEnded, JobExpired):  # raised if `read_and_cancel` was first
                    if rng.random() < 0.3:
                        runner.run(self._submit_parts(store, rng, owner, lane))
                    else:
                        key = number.to_bytes(16, "big") if rng.random() < 0.3 else b""
                        runner.run(self._submit_at_once(store, rng, owner, lane, key))

    async def _submit_at_once(self, store: Store, rng: random.Random, owner: str, lane: Lane, key: bytes) -> None:
        images = [b"image"] * rng.randint(1, 4)
        submission = replace(await store.submission(*images, owner=owner, lane=lane), key=key, fingerprint=key)
        if isinstance(await store.submitter.enqueue(submission), int):
            self.replies.accepted[submission.id] = owner
            self.replies.items[submission.id] += len(images)

    async def _submit_parts(self, store: Store, rng: random.Random, owner: str, lane: Lane) -> None:
        part = await store.open(owner=owner, lane=lane)
        self.replies.accepted[part.job_id] = owner
        first = 0
        for number in range(rng.randint(0, 5)):
            chunk = make_chunk([b"image"] * rng.randint(1, 4), first)
            for _ in range(rng.randint(1, 2)):
                part.chunks = number  # the second time as if the reply had been lost
                await store.open_jobs.add(part, chunk, bytes(16))
                self.replies.items[part.job_id] = first + len(chunk.names)
            first += len(chunk.names)
        try:
            await store.open_jobs.seal(part.job_id, owner)
        except JobEmpty:
            await store.jobs.cancel(part.job_id, owner)

    def work(self, rng: random.Random, number: int) -> None:
        """Claims; then finishes, renews, crashes or returns a lease, or leaves it to the reaper."""
        with self.store() as (store, _):
            leases, claims = list[Lease](), 0
            while not self.all_submitted.is_set():
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
        """Each finish has a result of its own, which identifies it when it is read."""
        for claimed in lease.chunks:
            good: Outcome = [Prediction(next(self.tags) % 65536, 0.5)]
            outcomes = [
                rng.choice([good, good, Failure(ItemCode.CORRUPT_IMAGE)]) for _ in range(claimed.chunk_ref.items)
            ]
            packed = pack_outcomes(f"{MODEL}@1", outcomes)
            late = lease.token in self.replies.released
            taken = store.leases.finish(lease.token, [FinishedChunk(claimed.chunk_ref, outcomes.count(good), packed)])
            assert taken in ({0} if late else {0, claimed.chunk_ref.items})
            if taken:
                self.replies.written[claimed.chunk_ref.job_id, claimed.chunk_ref.chunk].append(outcomes)
            else:
                self.replies.refused += 1

    def release(self, store: Store, token: str, reason: str, *, seen_end: str = "") -> None:
        if store.leases.release(token, reason, seen=seen_end):
            self.replies.released.add(token)

    def reap(self, rng: random.Random) -> None:
        """Expires leases at random, releases them as lost, and sweeps."""
        with self.store() as (store, _):
            while not self.all_submitted.is_set():
                for token in store.leases.tokens_of(WORKER_ID):
                    if rng.random() < 0.2:
                        store.redis.zadd(keys.LEASES, {token: 1}, xx=True)
                for token, end in store.leases.overdue(100).items():
                    self.release(store, token, WORKER_LOST, seen_end=end)
                store.leases.sweep([MODEL], seconds=0.01)

    def read_and_cancel(self, rng: random.Random) -> None:
        """Reads, cancels and deletes."""
        with self.store() as (store, runner):
            while not self.all_submitted.is_set():
                if self.replies.accepted:
                    job_id, owner = rng.choice(list(self.replies.accepted.items())[-20:])
                    with suppress(JobExpired):
                        runner.run(self._read_or_cancel(store, rng.randrange(12), job_id, owner))

    async def _read_or_cancel(self, store: Store, action: int, job_id: bytes, owner: str) -> None:
        if action == 0:
            await store.jobs.cancel(job_id, owner)
        elif action == 1:
            self.replies.deleted.add(job_id)
            await store.jobs.delete(job_id, owner)
        else:
            await self.read(store, job_id, owner)

    async def read(self, store: Store, job_id: bytes, owner: str) -> list[Item]:
        items = [item async for _, _, item in store.jobs.items(await store.get(job_id, owner))]
        for item in items:
            if item.state is not ItemState.PENDING:
                self.replies.read[job_id, item.index].add(f"{item.state} {item.outcome}")
        return items

    def run(self) -> None:
        """Run all threads until all jobs are submitted."""
        with ThreadPoolExecutor(CLAIMERS + SUBMITTERS + 2) as pool:
            others = [pool.submit(self.work, random.Random(f"work {n}"), n) for n in range(CLAIMERS)]
            others += [
                pool.submit(self.reap, random.Random("reap")),
                pool.submit(self.read_and_cancel, random.Random("read")),
            ]
            try:
                for submitting in [pool.submit(self.submit, random.Random(f"submit {n}")) for n in range(SUBMITTERS)]:
                    submitting.result(timeout=120)
            finally:
                self.all_submitted.set()
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


def test_in_any_order_of_calls_each_item_ends_once_and_nothing_is_left(
    store_settings: StoreSettings, valkey: Valkey
) -> None:
    calls = ConcurrentCalls(store_settings, valkey)
    calls.run()
    replies = calls.replies
    with calls.store() as (store, runner):
        calls.drain(store)
        runner.run(store.jobs.sweep([MODEL]))

        assert store.stat("transitions") == sum(replies.items.values())
        assert [store.stat(name) for name in ("uploads", *(f"uploads:{owner}" for owner in OWNERS))] == [0, 0, 0]
        assert [store.stat(f"pending:{owner}") for owner in OWNERS] == [0, 0]
        for job_id in replies.accepted.keys() - replies.deleted:
            items = runner.run(calls.read(store, job_id, replies.accepted[job_id]))
            job = runner.run(store.get(job_id, replies.accepted[job_id]))
            assert job.state.ended
            assert len(items) == job.total == replies.items[job_id]
            written = {chunk: replies.written[job_id, chunk] for chunk in range(job.chunks)}
            shown = [item.outcome for item in items if item.state is not ItemState.CANCELED]
            assert shown == [outcome for times in written.values() for outcomes in times for outcome in outcomes]
            assert all(item.state is not ItemState.PENDING for item in items)
        assert max(map(len, replies.written.values())) == 1, "a chunk was finished twice"
        assert max(map(len, replies.read.values())) == 1, "an item was read in two terminal states"

        for job_id in replies.accepted.keys() - replies.deleted:
            store.redis.hincrby(job_key(job_id), keys.FIELDS["ended_ms"], -OVER_MS)
        for owner in OWNERS:
            store.note_oldest(owner)
        runner.run(store.jobs.sweep([MODEL]))
        assert store.keys() <= {name.encode() for name in (keys.STATS, keys.SIGNING_KEY, keys.STORE_ID)}
        assert store.stat("records") == 0
    assert min(replies.refused, len(replies.deleted), len(replies.read)) > 20
