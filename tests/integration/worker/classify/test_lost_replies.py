"""Redis fails in the middle of a slice, or its reply to a call is lost."""

from typing import Any

import pytest
import redis

from jobs.records import Lane
from jobs.store import keys
from jobs.store.for_workers.leases import LeaseStore
from tests.support.claim_loops import BULK_FIRST, SMALLEST, MakeClaimLoop
from tests.support.store import MODEL, Store
from worker.classify.lease_run import LeaseRunner


async def test_when_redis_goes_away_in_the_middle_the_lease_is_released_without_a_failure(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(shirt)
    claim_loop = make_claim_loop()

    def lose_redis(*_: object) -> None:
        raise redis.exceptions.ConnectionError("gone")

    monkeypatch.setattr(LeaseRunner, "run", lose_redis)
    with pytest.raises(redis.exceptions.ConnectionError):
        claim_loop.run_slice("task", MODEL)

    lease = store.claim()
    assert len(lease.chunks) == 1
    assert (lease.chunks[0].failure_counts.lost_leases, lease.chunks[0].failure_counts.crashes) == (0, 0)


async def test_a_finish_whose_reply_is_lost_is_repeated_and_counts_once(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    loop_store: LeaseStore,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.submit(shirt)
    claim_loop = make_claim_loop(store=loop_store, slice_seconds=1e-6)
    finish = loop_store.finish
    calls = 0

    def lose_the_first_reply(*args: object, **options: object) -> int:
        nonlocal calls
        calls += 1
        finished = finish(*args, **options)
        if calls == 1:
            raise redis.exceptions.TimeoutError("no reply")
        return finished

    monkeypatch.setattr(loop_store, "finish", lose_the_first_reply)
    claim_loop.run_slice("task", MODEL)

    assert calls == 2
    assert store.stat("transitions") == 1


async def test_a_claim_whose_reply_is_lost_is_released(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    loop_store: LeaseStore,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.submit(shirt)
    claim_loop = make_claim_loop(store=loop_store)
    claim = loop_store.claim

    def lose_the_reply(*args: object, **options: object) -> None:
        claim(*args, **options)
        raise redis.exceptions.TimeoutError("no reply")

    monkeypatch.setattr(loop_store, "claim", lose_the_reply)
    with pytest.raises(redis.exceptions.TimeoutError):
        claim_loop.run_slice("task", MODEL)

    assert len(store.claim().chunks) == 1


async def test_when_redis_goes_away_between_two_slices_both_leases_are_released_without_a_failure(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    loop_store: LeaseStore,
    shirt: bytes,
    bag: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    jobs = {await store.submit(*[shirt] * 3, lane=Lane.BULK), await store.submit(bag)}
    claim_loop = make_claim_loop(store=loop_store, first_turn=BULK_FIRST, bulk_slice_seconds=SMALLEST)
    claim = loop_store.claim

    def lose_the_second_reply(*args: Any, **options: Any) -> Any:
        lease = claim(*args, **options)
        if not lease.bulk:
            raise redis.exceptions.TimeoutError("no reply")
        return lease

    monkeypatch.setattr(loop_store, "claim", lose_the_second_reply)
    with pytest.raises(redis.exceptions.TimeoutError):
        claim_loop.run_slice("task", MODEL)

    assert store.redis.exists(keys.LEASES) == 0
    claimed = [store.claim(number).chunks[0] for number in range(2)]
    assert {one.chunk_ref.job_id for one in claimed} == jobs
    assert {(one.failure_counts.lost_leases, one.failure_counts.crashes) for one in claimed} == {(0, 0)}
