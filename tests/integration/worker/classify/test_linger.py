"""A claim loop without work lingers: work that arrives meanwhile is started at once, without the doorbell."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
import redis

from jobs.item_codes import ItemCode
from jobs.records import Lane
from jobs.store import keys
from tests.support.claim_loops import MakeClaimLoop
from tests.support.store import MODEL, Store, owner_token
from tests.support.waiting import eventually

LINGER_SECONDS = 120  # a claim loop that is not woken is much too late for these tests
SOON_SECONDS = 30
Lingering = Callable[..., AbstractAsyncContextManager[None]]


def blocked(store: Store) -> int:
    return int(store.redis.info("clients")["blocked_clients"])


def calls(store: Store) -> tuple[int, int]:
    """How many calls waited for work, and how many ran a script."""
    commands = store.redis.info("commandstats")
    return tuple(int(commands.get(f"cmdstat_{name}", {"calls": 0})["calls"]) for name in ("blpop", "evalsha"))


@pytest.fixture
def lingering(make_claim_loop: MakeClaimLoop, store: Store) -> Lingering:
    """A claim loop in another thread, which lingers; in the end it loses its connection."""

    @asynccontextmanager
    async def linger(**settings: float) -> AsyncIterator[None]:
        times = {"linger_seconds": LINGER_SECONDS, "slice_seconds": LINGER_SECONDS, "store_timeout_seconds": 180}
        claim_loop = make_claim_loop(**times | settings)
        slice_run = asyncio.create_task(asyncio.to_thread(claim_loop.run_slice, "task", MODEL))
        await eventually(lambda: blocked(store) == 1, what="a claim loop that lingers")
        try:
            yield
        finally:
            await eventually(lambda: blocked(store) == 1, what="a claim loop that lingers again")
            _cut(store)
            with pytest.raises(redis.exceptions.ConnectionError):
                await slice_run
        assert not store.redis.exists(keys.QUEUE + MODEL), "no doorbell had a part in it"

    return linger


def _cut(store: Store) -> None:
    (client,) = (it for it in store.redis.client_list() if it["cmd"] == "blpop")
    store.redis.client_kill_filter(client["id"])


async def ended(store: Store, count: int) -> None:
    await eventually(lambda: store.stat("transitions") == count, seconds=SOON_SECONDS, what=f"{count} results")


async def test_a_child_that_lingers_starts_new_work_without_the_doorbell(
    lingering: Lingering, store: Store, shirt: bytes
) -> None:
    async with lingering():
        await store.submit(shirt)
        await ended(store, 1)


async def test_each_job_wakes_a_child_that_lingers_once(lingering: Lingering, store: Store, shirt: bytes) -> None:
    async with lingering():
        for number in range(1, 12):
            await store.submit(shirt)
            await ended(store, number)
            await eventually(lambda: blocked(store) == 1, what="a claim loop that lingers again")
            if number == 1:  # from now on the server knows all scripts
                before = calls(store)
        waits, scripts = (after - at_first for after, at_first in zip(calls(store), before, strict=True))
    assert waits == 10, "one wait for each job: none of them ran out, and nothing was polled"
    assert scripts == 10 * 4, "a submit, a claim, and a finish with a claim that finds nothing"


@pytest.mark.parametrize("lane", Lane)
async def test_work_of_either_lane_is_started(lingering: Lingering, store: Store, shirt: bytes, lane: Lane) -> None:
    async with lingering():
        await store.submit(*[shirt] * 3, lane=lane)
        await ended(store, 3)


async def test_work_that_names_this_very_version_is_started(lingering: Lingering, store: Store, shirt: bytes) -> None:
    async with lingering():
        for done, model in enumerate((f"{MODEL}@1", MODEL, f"{MODEL}@1"), 1):
            await store.submit(shirt, model=model)
            await ended(store, done)


async def test_more_work_than_one_claim_is_done_without_another_submit(
    lingering: Lingering, store: Store, shirt: bytes
) -> None:
    async with lingering(batch_items=4):
        await asyncio.gather(*(store.submit(shirt) for _ in range(50)))
        await ended(store, 50)


async def test_a_suspect_that_is_released_is_started(lingering: Lingering, store: Store, shirt: bytes) -> None:
    await store.submit(shirt)
    lease = store.claim()
    async with lingering():
        store.leases.release(lease.token, ItemCode.WORKER_CRASHED)
        await ended(store, 1)


async def test_a_child_that_does_not_linger_returns_at_once(make_claim_loop: MakeClaimLoop, store: Store) -> None:
    store.redis.config_resetstat()
    await asyncio.to_thread(make_claim_loop(slice_seconds=30).run_slice, "task", MODEL)
    commands = store.redis.info("commandstats")
    assert "cmdstat_blpop" not in commands
    assert commands["cmdstat_evalsha"]["calls"] <= 2, "one claim; of the first, the server may not know the script"


async def test_a_child_that_lingers_in_vain_claims_once_before_and_once_after(
    make_claim_loop: MakeClaimLoop, store: Store
) -> None:
    claim_loop = make_claim_loop(linger_seconds=1, slice_seconds=30)
    store.claim(owner_token(9, pid=9))  # so that the server knows the script
    store.redis.config_resetstat()
    await asyncio.to_thread(claim_loop.run_slice, "task", MODEL)
    assert calls(store) == (1, 2)
    assert store.redis.exists(keys.LEASES) == 0


async def test_a_child_does_not_linger_beyond_its_slice(make_claim_loop: MakeClaimLoop, store: Store) -> None:
    claim_loop = make_claim_loop(linger_seconds=LINGER_SECONDS, slice_seconds=0.1, store_timeout_seconds=180)
    async with asyncio.timeout(SOON_SECONDS):
        await asyncio.to_thread(claim_loop.run_slice, "task", MODEL)
