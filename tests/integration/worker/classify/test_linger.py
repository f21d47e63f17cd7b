"""A child that has nothing to do lingers: what comes meanwhile is begun at once, without the doorbell."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import redis

from jobs.item_codes import ItemCode
from jobs.records import Lane
from jobs.store import keys
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import MODEL, Store, owner_token
from tests.support.waiting import eventually
from worker.classify.claim_loop import ClaimLoop
from worker.inference.classifier import Classifier
from worker.settings import WorkerSettings

LINGER_SECONDS = 120  # whoever is not woken is much too late for these tests
SOON_SECONDS = 30
Lingering = Callable[..., AbstractAsyncContextManager[None]]


def make_claim_loop(valkey: Valkey, classifier: Classifier, **settings: float) -> ClaimLoop:
    checked = WorkerSettings(redis_url=valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    return ClaimLoop(checked.model_copy(update=settings), classifier, "boot")


def blocked(store: Store) -> int:
    return int(store.redis.info("clients")["blocked_clients"])


@pytest.fixture
def lingering(valkey: Valkey, classifier: Classifier, store: Store) -> Lingering:
    """A child in another thread, which lingers; in the end it loses its connection."""

    @asynccontextmanager
    async def linger(**settings: float) -> AsyncIterator[None]:
        times = {"linger_seconds": LINGER_SECONDS, "slice_seconds": LINGER_SECONDS, "store_timeout_seconds": 180}
        child = make_claim_loop(valkey, classifier, **times | settings)
        serving = asyncio.create_task(asyncio.to_thread(child.serve, "task", MODEL))
        await eventually(lambda: blocked(store) == 1, what="a child that lingers")
        try:
            yield
        finally:
            await eventually(lambda: blocked(store) == 1, what="a child that lingers again")
            _cut(store)
            with pytest.raises(redis.exceptions.ConnectionError):
                await serving
        assert not store.redis.exists(keys.QUEUE + MODEL), "no doorbell had a part in it"

    return linger


def _cut(store: Store) -> None:
    (client,) = (it for it in store.redis.client_list() if it["cmd"] == "blpop")
    store.redis.client_kill_filter(client["id"])


async def ended(store: Store, count: int) -> None:
    await eventually(lambda: store.stat("transitions") == count, seconds=SOON_SECONDS, what=f"{count} results")


async def test_a_child_that_lingers_begins_what_comes_without_the_doorbell(
    lingering: Lingering, store: Store, shirt: bytes
) -> None:
    async with lingering():
        await store.submit(shirt)
        await ended(store, 1)


async def test_a_child_that_lingers_begins_within_milliseconds(
    lingering: Lingering, store: Store, shirt: bytes
) -> None:
    took = list[float]()
    async with lingering():
        for number in range(1, 11):
            await eventually(lambda: blocked(store) == 1, what="a child that lingers")
            started = time.monotonic()
            await store.submit(shirt)
            while store.stat("transitions") < number:
                assert time.monotonic() < started + SOON_SECONDS
            took.append(time.monotonic() - started)
    assert min(took) < 0.05, "of some tries, for others have the cores too"


@pytest.mark.parametrize("lane", Lane)
async def test_what_comes_in_either_lane_is_begun(lingering: Lingering, store: Store, shirt: bytes, lane: Lane) -> None:
    async with lingering():
        await store.submit(*[shirt] * 3, lane=lane)
        await ended(store, 3)


async def test_what_asks_for_this_very_version_is_begun(lingering: Lingering, store: Store, shirt: bytes) -> None:
    async with lingering():
        for done, model in enumerate((f"{MODEL}@1", MODEL, f"{MODEL}@1"), 1):
            await store.submit(shirt, model=model)
            await ended(store, done)


async def test_what_is_more_than_one_claim_is_done_without_another_submit(
    lingering: Lingering, store: Store, shirt: bytes
) -> None:
    async with lingering(batch_items=4):
        await asyncio.gather(*(store.submit(shirt) for _ in range(50)))
        await ended(store, 50)


async def test_a_suspect_that_is_given_back_is_begun(lingering: Lingering, store: Store, shirt: bytes) -> None:
    await store.submit(shirt)
    lease = store.claim()
    async with lingering():
        store.leases.release(lease.token, ItemCode.WORKER_CRASHED)
        await ended(store, 1)


async def test_a_child_that_does_not_linger_returns_at_once(
    valkey: Valkey, classifier: Classifier, store: Store
) -> None:
    store.redis.config_resetstat()
    await asyncio.to_thread(
        make_claim_loop(valkey, classifier, linger_seconds=0, slice_seconds=30).serve, "task", MODEL
    )
    commands = store.redis.info("commandstats")
    assert "cmdstat_blpop" not in commands
    assert commands["cmdstat_evalsha"]["calls"] <= 2, "one claim; of the first, the server may not know the script"


async def test_a_child_that_lingers_in_vain_looks_no_more_often_than_at_its_ends(
    valkey: Valkey, classifier: Classifier, store: Store
) -> None:
    child = make_claim_loop(valkey, classifier, linger_seconds=0.3)
    store.claim(owner_token(9, pid=9))  # so that the server knows the script
    store.redis.config_resetstat()
    await asyncio.to_thread(child.serve, "task", MODEL)
    commands = store.redis.info("commandstats")
    assert (commands["cmdstat_blpop"]["calls"], commands["cmdstat_evalsha"]["calls"]) == (1, 2)
    assert store.redis.exists(keys.LEASES) == 0


async def test_a_child_does_not_linger_beyond_its_slice(valkey: Valkey, classifier: Classifier, store: Store) -> None:
    child = make_claim_loop(
        valkey, classifier, linger_seconds=LINGER_SECONDS, slice_seconds=0.1, store_timeout_seconds=180
    )
    async with asyncio.timeout(SOON_SECONDS):
        await asyncio.to_thread(child.serve, "task", MODEL)
