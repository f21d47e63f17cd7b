"""The bulk lane: slices, and interactive work between them."""

import asyncio
from typing import Any

import pytest

from jobs.records import JobState, Lane
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from tests.support.claim_loops import BULK_FIRST, SMALLEST, BeforeDecode, MakeClaimLoop, outcomes_of
from tests.support.store import MODEL, OWNER, Store
from worker.inference.classifier import Classifier


@pytest.mark.parametrize("change", ["cancel", "delete"])
async def test_a_bulk_lease_is_dropped_once_its_jobs_have_ended(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    shirt: bytes,
    before_decode: BeforeDecode,
    monkeypatch: pytest.MonkeyPatch,
    change: str,
) -> None:
    monkeypatch.setattr("worker.classify.claim_loop.CANCELED_CHECK_SECONDS", 0)
    job_id = await store.submit(*[shirt] * 64, lane=Lane.BULK)
    seen = list[bytes]()
    event_loop = asyncio.get_running_loop()

    def change_at_the_tenth(upload: bytes) -> None:
        seen.append(upload)
        if len(seen) == 10:
            asyncio.run_coroutine_threadsafe(getattr(store.jobs, change)(job_id, OWNER), event_loop).result(30)

    before_decode(change_at_the_tenth)
    await asyncio.to_thread(make_claim_loop(bulk_slice_seconds=SMALLEST).run_slice, "task", MODEL)

    assert len(seen) == 10
    assert store.redis.exists(keys.LEASES) == 0
    await store.jobs.sweep([])  # frees the bytes
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}")) == (0, 0)


async def test_interactive_work_runs_between_the_slices_of_a_bulk_lease(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, before_decode: BeforeDecode
) -> None:
    bulk = await store.submit(*[shirt] * 5, lane=Lane.BULK)
    interactive = [await store.submit(bag) for _ in range(3)]
    seen = list[bytes]()
    before_decode(seen.append)

    make_claim_loop(first_turn=BULK_FIRST, bulk_slice_seconds=SMALLEST).run_slice("task", MODEL)

    assert seen == [shirt, *[bag] * 3, *[shirt] * 4]
    for job_id in (bulk, *interactive):
        assert (await store.get(job_id)).state is JobState.COMPLETED
    assert store.stat("transitions") == 8
    assert store.redis.exists(keys.LEASES) == 0


async def test_interactive_work_that_comes_during_a_bulk_lease_waits_for_one_slice(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, before_decode: BeforeDecode
) -> None:
    await store.submit(*[shirt] * 64, lane=Lane.BULK)
    seen = list[bytes]()
    event_loop = asyncio.get_running_loop()

    def submit_at_the_tenth(upload: bytes) -> None:
        seen.append(upload)
        if len(seen) == 10:
            asyncio.run_coroutine_threadsafe(store.submit(bag), event_loop).result(30)

    before_decode(submit_at_the_tenth)
    await asyncio.to_thread(make_claim_loop(bulk_slice_seconds=SMALLEST).run_slice, "task", MODEL)

    assert seen.index(bag) == 10
    assert len(seen) == 65


async def test_interactive_work_without_end_leaves_bulk_every_eighth_turn(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, before_decode: BeforeDecode
) -> None:
    await store.submit(*[shirt] * 3, lane=Lane.BULK)
    for _ in range(20):
        await store.submit(bag)
    seen = list[bytes]()
    before_decode(seen.append)

    make_claim_loop(first_turn=BULK_FIRST, bulk_slice_seconds=SMALLEST, batch_items=1, slice_seconds=30).run_slice(
        "task", MODEL
    )

    assert [at for at, upload in enumerate(seen) if upload == shirt] == [0, 8, 16]
    assert len(seen) == 23


async def test_a_bulk_claim_takes_more_images_if_they_are_cheap(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    classifier: Classifier,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await store.submit(*[shirt] * 320, lane=Lane.BULK)
    claim_loop = make_claim_loop(bulk_slice_seconds=30, slice_seconds=30, task_time_limit_seconds=200)
    classify, batches = classifier.classify_quick, list[int]()

    def count(images: Any, top_ks: Any, until: float) -> Any:
        batches.append(len(images))
        return classify(images, top_ks, until=until)

    monkeypatch.setattr(classifier, "classify_quick", count)
    claim_loop.run_slice("task", MODEL)

    assert batches == [4, 60, 256]


async def test_a_bulk_lease_that_takes_too_long_goes_on_later_where_it_stopped(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    shirt: bytes,
    before_decode: BeforeDecode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = await store.submit(*[shirt] * 3, lane=Lane.BULK)
    claim_loop = make_claim_loop(slice_seconds=1e-6, task_time_limit_seconds=100)
    clock, leases = 0.0, 0

    def take_long(_: bytes) -> None:
        nonlocal clock
        clock += 30

    before_decode(take_long)
    monkeypatch.setattr("time.monotonic", lambda: clock)
    while not (await store.get(job_id)).state.ended:
        claim_loop.run_slice("task", MODEL)
        leases += 1
        assert not store.redis.exists(store.suspects())

    assert (leases, clock) == (3, 90), "an image a lease, and none twice"
    assert not store.redis.hexists(job_key(job_id), chunk_field("failure_counts", 0)), "no failure was counted"
    assert all(isinstance(outcome, list) for outcome in await outcomes_of(store, job_id))
    assert store.stat("records") == store.record_bytes(job_id)
