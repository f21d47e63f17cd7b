"""Chunks whose bytes cannot be read, or are not read again because reading them has failed too often."""

import pytest

from jobs.codec import pack_outcomes
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.store.for_workers.leases import RETURNED, WORKER_LOST, LeaseStore
from jobs.store.job_hash import chunk_field, job_key, upload_key
from tests.support.claim_loops import MakeClaimLoop, outcomes_of
from tests.support.store import COAT, MODEL, Store, owner_token

SUSPECT_FIRST = 1  # a turn that takes a suspect before anything else
LOSSES_MAX = 20  # the default


@pytest.mark.parametrize(("reason", "times"), [(ItemCode.TIMEOUT, 3), (WORKER_LOST, LOSSES_MAX)])
async def test_bytes_that_took_too_many_processes_are_not_read_again(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    loop_store: LeaseStore,
    shirt: bytes,
    reason: str,
    times: int,
) -> None:
    """As over a line so slow that each process that reads them is killed at its time limit, or loses its lease."""
    job_id = await store.submit(shirt)
    for attempt in range(times):
        store.leases.release(store.claim(attempt).token, reason)
        lease = loop_store.claim(MODEL, owner_token(99), items_max=1, bytes_max=1, turn=SUSPECT_FIRST)
        assert (lease.chunks[0].upload is None) == (attempt == times - 1)
        loop_store.release(lease.token, RETURNED)
    assert store.redis.exists(upload_key(job_id, 0)) == 1
    make_claim_loop(first_turn=SUSPECT_FIRST).run_slice("task", MODEL)
    job = await store.get(job_id)
    assert job.single_item is not None
    assert job.single_item.outcome == Failure(ItemCode(reason))


async def test_images_that_were_done_before_keep_their_results(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    job_id = await store.submit(shirt, shirt)
    store.redis.hset(job_key(job_id), chunk_field("progress", 0), pack_outcomes(f"{MODEL}@1", [COAT]))
    for attempt in range(LOSSES_MAX):
        store.leases.release(store.claim(attempt).token, WORKER_LOST)
    make_claim_loop(first_turn=SUSPECT_FIRST).run_slice("task", MODEL)
    assert await outcomes_of(store, job_id) == [COAT, Failure(ItemCode.WORKER_LOST)]
