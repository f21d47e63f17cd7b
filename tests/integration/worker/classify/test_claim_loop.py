"""The claim loop in this process, on a real store with the real model."""

from typing import Any

import pytest

from jobs.codec import pack_upload, unpack_retained
from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.scripts import load_scripts
from tests.support.claim_loops import BeforeDecode, MakeClaimLoop, outcomes_of
from tests.support.pictures import bad_pictures, good_pictures
from tests.support.store import MODEL, OWNER, Store, chunk_of
from worker.classify.lease_run import LeaseRunner


async def test_a_slice_classifies_what_is_ready(store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes) -> None:
    jobs = [await store.submit(shirt) for _ in range(100)]

    make_claim_loop(slice_seconds=30).run_slice("task", MODEL)

    for job_id in jobs:
        job = await store.get(job_id)
        assert job.state is JobState.COMPLETED
        assert job.single_item is not None
        assert isinstance(job.single_item.outcome, list)
        assert job.single_item.outcome[0].class_index == 6
    assert store.redis.exists(keys.LEASES) == 0
    assert store.stat("uploads") == 0


async def test_bad_pictures_fail_alone(store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes) -> None:
    good, bad = good_pictures(shirt), bad_pictures(shirt)
    uploads = [*good.values(), *(upload for upload, _ in bad.values())]
    job_id = await store.submit(*uploads)

    make_claim_loop().run_slice("task", MODEL)

    job = await store.get(job_id)
    assert (job.state, job.succeeded, job.failed) == (JobState.COMPLETED, len(good), len(bad))
    outcomes = [item.outcome async for _, _, item in store.jobs.items(job)]
    assert [o.code for o in outcomes if isinstance(o, Failure)] == [code for _, code in bad.values()]
    assert all(isinstance(outcome, list) for outcome in outcomes[: len(good)])


async def test_an_item_that_the_api_refused_to_keep_fails_as_too_large(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    submission = await store.submission(shirt, shirt)
    chunk_of(submission).data = pack_upload([ItemCode.ITEM_TOO_LARGE, shirt])
    await store.submitter.enqueue(submission)

    make_claim_loop().run_slice("task", MODEL)

    outcomes = [item.outcome async for _, _, item in store.jobs.items(await store.get(submission.id))]
    assert outcomes[0] == Failure(ItemCode.ITEM_TOO_LARGE)
    assert isinstance(outcomes[1], list)


async def test_a_slice_ends_in_time_and_rings_for_what_is_left(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    for _ in range(10):
        await store.submit(shirt)
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")

    make_claim_loop(slice_seconds=1e-6, batch_items=4).run_slice("task", MODEL)

    assert store.stat("transitions") == 4
    assert store.redis.llen(keys.QUEUE + MODEL) == 1


async def test_chunks_of_a_job_that_was_canceled_meanwhile_are_dropped(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt)
    run = LeaseRunner.run

    def cancel_first(*args: Any) -> Any:
        store.redis.evalsha(load_scripts(0)["cancel"].sha1, 0, job_id, OWNER)
        return run(*args)

    monkeypatch.setattr(LeaseRunner, "run", cancel_first)
    make_claim_loop().run_slice("task", MODEL)

    assert (await store.get(job_id)).state is JobState.CANCELED
    assert store.redis.exists(keys.LEASES) == 0
    await store.jobs.sweep([])  # frees the bytes
    assert (store.stat(f"pending:{OWNER}"), store.stat("transitions"), store.stat("uploads")) == (0, 1, 0)


async def test_the_bytes_of_images_that_may_be_tried_again_are_retained(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, before_decode: BeforeDecode
) -> None:
    job_id = await store.submit(shirt, b"poison", b"no image")

    def fail(upload: bytes) -> None:
        if upload == b"poison":
            raise RuntimeError("dead")

    before_decode(fail)
    claim_loop = make_claim_loop()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            claim_loop.run_slice("task", MODEL)
    claim_loop.run_slice("task", MODEL)

    _, passing, lasting = await outcomes_of(store, job_id)
    assert (passing, lasting) == (Failure(ItemCode.WORKER_CRASHED), Failure(ItemCode.NOT_AN_IMAGE))
    retained = store.redis.hget(job_key(job_id), chunk_field("retained", 0))
    assert retained is not None
    assert unpack_retained(retained) == {1: b"poison"}
