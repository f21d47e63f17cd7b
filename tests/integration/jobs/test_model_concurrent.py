"""Several clients at once, at random: no step can be foretold, and the end can."""

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from jobs import keys
from jobs.errors import DarkroomError, ItemCode
from jobs.leases import RETURNED, WORKER_LOST, Lease, LeaseStore
from jobs.records import Failure, ItemState, Lane, Outcome
from jobs.rows import job_key
from jobs.settings import StoreSettings
from tests.conftest import open_link
from tests.support.keyspace import unreachable
from tests.support.processes import Valkey
from tests.support.store import COAT, MODEL, OWNER, Store, finished, make_chunk

SUBMITS, CLAIMERS = 400, 4
BAD = Failure(ItemCode.NOT_AN_IMAGE)


class Clients:
    def __init__(self, store_settings: StoreSettings, seed: int) -> None:
        self._settings = store_settings
        self._seed = seed
        self.accepted = dict[bytes, int]()
        self.deleted = set[bytes]()
        self.finished = Counter[bytes]()
        """Images that the store took results of, by job."""
        self._lock = threading.Lock()
        self.submitted = threading.Event()

    def claimer(self, number: int) -> None:
        """Claims; then finishes, finishes twice, gives back, crashes, or forgets."""
        chance = random.Random(self._seed * 100 + number)
        leases = LeaseStore(self._settings, lease_seconds=0.05, timeout_seconds=5)
        forgotten = []
        for turn in range(1_000_000):
            lease = leases.claim(
                MODEL, f"boot|{number}|1|{turn}", items_max=chance.randint(1, 16), bytes_max=1 << 20, turn=turn
            )
            if not lease.chunks:
                if self.submitted.is_set() and not self._unended(leases):
                    break
                continue
            act = chance.random()
            if act < 0.6:
                self._finish(leases, lease, COAT if chance.random() < 0.8 else BAD)
            elif act < 0.7:
                leases.lapse(lease.token, RETURNED)
            elif act < 0.8:
                leases.lapse(lease.token, ItemCode.WORKER_CRASHED)
            else:
                forgotten.append(lease)
            if forgotten and chance.random() < 0.3:  # perhaps after somebody else has got its chunks
                self._finish(leases, forgotten.pop(chance.randrange(len(forgotten))), COAT)
        leases.close()

    def reaper(self) -> None:
        leases = LeaseStore(self._settings, lease_seconds=0.05, timeout_seconds=5)
        while not self.submitted.is_set() or self._unended(leases):
            for token, end in leases.overdue(100).items():
                leases.lapse(token, WORKER_LOST, seen=end)
            leases.sweep([MODEL], seconds=0.1)
        leases.close()

    def submitter(self, number: int) -> None:
        asyncio.run(self._submit(random.Random(self._seed * 1000 + number)))

    async def _submit(self, chance: random.Random) -> None:
        link = open_link(self._settings)
        store = Store(link, None, None)  # the API's side alone
        for number in range(SUBMITS):
            images = [b"image"] * chance.randint(1, 12)
            job_id = await store.submit(*images, lane=chance.choice(list(Lane)), chunk_items=4)
            with self._lock:
                self.accepted[job_id] = len(images)
            if number % 10 == 0:
                await self._meddle(store, chance)
        await link.close()

    async def _meddle(self, store: Store, chance: random.Random) -> None:
        """Cancel or delete a job, or add to one while it is claimed, and seal it."""
        with self._lock:
            job_id = chance.choice(list(self.accepted))
        act = chance.randint(0, 2)
        try:
            if act == 0:
                await store.jobs.cancel(job_id, OWNER)
            elif act == 1:
                with self._lock:
                    self.deleted.add(job_id)
                await store.jobs.delete(job_id, OWNER)
            else:
                part = await store.open()
                await store.open_jobs.add(part, make_chunk([b"a", b"b"], 0), bytes(16))
                await store.open_jobs.add(part, make_chunk([b"c"], 2), bytes(16))
                await store.open_jobs.seal(part.job_id, OWNER)
                with self._lock:
                    self.accepted[part.job_id] = 3
        except DarkroomError:
            assert act < 2, "nobody else knows of that open job"
            assert job_id in self.deleted

    def _finish(self, leases: LeaseStore, lease: Lease, outcome: Outcome) -> None:
        for done in finished(lease, outcome):
            taken = leases.finish(lease.token, [done])
            with self._lock:
                self.finished[done.entry.job_id] += taken

    def _unended(self, leases: LeaseStore) -> bool:
        pending = leases._redis.hget(keys.STATS, f"pending:{OWNER}")
        return int(pending or 0) > 0


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_whatever_clients_do_at_once_every_image_ends_once(
    store: Store, store_settings: StoreSettings, valkey: Valkey, seed: int
) -> None:
    clients = Clients(store_settings, seed)

    def work() -> None:
        with ThreadPoolExecutor(CLAIMERS + 3) as pool:
            submitters = [pool.submit(clients.submitter, number) for number in range(2)]
            others: list[Callable[[], None]] = [clients.reaper]
            others += [lambda number=number: clients.claimer(number) for number in range(CLAIMERS)]
            running = [pool.submit(other) for other in others]
            for submitter in submitters:
                submitter.result(timeout=60)
            clients.submitted.set()
            for each in running:
                each.result(timeout=60)

    await asyncio.to_thread(work)

    assert store.stat("transitions") == sum(clients.accepted.values())
    for job_id, total in clients.accepted.items():
        if job_id in clients.deleted:
            continue
        job = await store.get(job_id)
        assert job.state.ended
        states = Counter([item.state async for _, _, item in store.jobs.items(job)])
        assert states[ItemState.SUCCEEDED] + states[ItemState.FAILED] == clients.finished[job_id]
        assert (states.total(), job.total, states[ItemState.PENDING]) == (total, total, 0)
    assert store.redis.exists(keys.LEASES, keys.SUSPECT_AT, keys.OPEN) == 0
    assert unreachable(store.redis, owner=OWNER) == []
    for job_id in clients.accepted.keys() - clients.deleted:
        store.redis.hset(job_key(job_id), "e", 1)
    await store.jobs.sweep([MODEL])
    assert (store.stat("uploads"), store.stat("records"), store.stat(f"pending:{OWNER}")) == (0, 0, 0)
    assert store.redis.keys(f"{keys.JOB}*") + store.redis.keys(f"{keys.UPLOAD}*") == []
