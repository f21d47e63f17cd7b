"""Images that take long to decode: others' images, and those of the same lease, do not wait for them."""

import asyncio
from dataclasses import replace

import pytest

from jobs.records import JobState, Lane
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.keys import Heartbeat
from tests.support.claim_loops import BeforeDecode, MakeClaimLoop
from tests.support.costly_pictures import flat_png
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from tests.support.store import MODEL, WORKER_ID, Store, owner_token
from worker.inference.classifier import Classifier
from worker.inference.packages.load import load_package

SLOW_SECONDS = 0.001  # by the estimate: of 30,000 pixels of RGBA
SUSPECT_FIRST = 1  # a turn that takes a suspect before anything else


@pytest.fixture
def classifier() -> Classifier:
    return load_package(ROOT / "weights" / "fmnist-mlp", replace(LIMITS, seconds_max=SLOW_SECONDS))


@pytest.fixture
def slow() -> bytes:
    return flat_png(200)


@pytest.mark.parametrize("lane", Lane)
async def test_all_quick_chunks_of_a_lease_are_written_before_the_slow_image_is_decoded(
    lane: Lane, store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, slow: bytes, before_decode: BeforeDecode
) -> None:
    mixed = await store.submit(shirt, slow, shirt, lane=lane)
    quick = await store.submit(shirt, lane=lane)
    ended_before = list[int]()

    def note(upload: bytes) -> None:
        if upload == slow:
            ended_before.append(store.stat("transitions"))

    before_decode(note)
    make_claim_loop(slice_seconds=5, linger_seconds=0).run_slice("task", MODEL)

    assert ended_before[-1] == 1
    for job_id, items in ((mixed, 3), (quick, 1)):
        job = await store.get(job_id)
        assert (job.state, job.succeeded) == (JobState.COMPLETED, items)
    assert not store.redis.hexists(job_key(mixed), chunk_field("failure_counts", 0)), "no failure was counted"
    assert store.stat("records") == sum(map(store.record_bytes, (mixed, quick)))


async def test_an_owner_with_many_slow_images_takes_turns_with_another(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    slow: bytes,
    before_decode: BeforeDecode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.classify.claim_loop.SUSPECT_TURN_SECONDS", 0)
    other = flat_png(210)
    jobs = [await store.submit(*[slow] * 6, owner="ann"), await store.submit(*[other] * 2, owner="bob")]
    seen = list[bytes]()
    before_decode(seen.append)

    make_claim_loop(slice_seconds=5, first_turn=SUSPECT_FIRST).run_slice("task", MODEL)

    last = len(seen) - 1 - seen[::-1].index(other)
    assert seen[last + 1 :].count(slow) >= 3, "the other's second image is done before most of the first owner's"
    states = [(await store.get(job_id, owner)).state for job_id, owner in zip(jobs, ("ann", "bob"), strict=True)]
    assert states == [JobState.COMPLETED] * 2


async def test_an_interactive_lease_lets_others_go_first_and_repeats_nothing(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    shirt: bytes,
    bag: bytes,
    before_decode: BeforeDecode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.classify.lease_run.INTERACTIVE_SLICE_SECONDS", 0)
    long = await store.submit(*[shirt] * 8)
    seen, arrivals = list[bytes](), iter([await store.submission(bag, owner="bob")])

    def note(upload: bytes) -> None:
        if (submission := next(arrivals, None)) is not None:  # it arrives while the first image is at work
            asyncio.run_coroutine_threadsafe(store.submitter.enqueue(submission), loop).result()
        seen.append(upload)

    before_decode(note)
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(make_claim_loop(slice_seconds=5).run_slice, "task", MODEL)

    assert seen == [shirt, bag, *[shirt] * 7]
    assert (await store.get(long)).succeeded == 8
    assert not store.redis.hexists(job_key(long), chunk_field("failure_counts", 0)), "no failure was counted"


async def test_one_process_of_a_model_is_kept_from_suspects(
    store: Store, loop_store: LeaseStore, make_claim_loop: MakeClaimLoop, slow: bytes, shirt: bytes
) -> None:
    heartbeats = [(MODEL, Heartbeat(f"{MODEL}@1", WORKER_ID, pid)) for pid in (1, 2)]
    loop_store.heartbeat(heartbeats, seconds=60)
    for owner in ("ann", "bob"):
        await store.submit(slow, owner=owner)
        lease = store.claim()
        loop_store.renew(lease.token, at_item=-1)
        loop_store.release(lease.token, "returned")

    first = store.claim(turn=SUSPECT_FIRST)
    assert (first.suspect, len(first.chunks)) == (True, 1)
    second = store.claim(owner_token(1), turn=SUSPECT_FIRST)
    assert (second.chunks, second.more) == ([], False), "no process tries again and again"
    await store.submit(shirt)
    third = store.claim(owner_token(2), turn=SUSPECT_FIRST)
    assert (third.suspect, len(third.chunks)) == (False, 1)
    store.finish(first)
    assert store.claim(owner_token(3), turn=SUSPECT_FIRST).suspect
