"""The child's loop in this process, on a real store with the real model."""

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis

from jobs.codec import pack_upload, unpack_retained
from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState, Lane
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.keys import Heartbeat
from jobs.store.scripts import load_scripts
from tests.support.pictures import bad_pictures, good_pictures, samples
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import MODEL, OWNER, WORKER_ID, Store, chunk_of, owner_token
from tests.support.waiting import eventually
from worker import process_state as notes
from worker.classify.claim_loop import ClaimLoop
from worker.inference.classifier import Classifier
from worker.inference.images.batch import ImageBatch
from worker.lease_renewer import LeaseRenewer
from worker.settings import WorkerSettings

MakeClaimLoop = Callable[..., ClaimLoop]


@pytest.fixture
def make_claim_loop(valkey: Valkey, classifier: Classifier) -> MakeClaimLoop:
    def make(**settings: float) -> ClaimLoop:
        values = {"redis_url": valkey.url, "redis_maxmemory_bytes": MAXMEMORY_BYTES, "linger_seconds": 0}
        return ClaimLoop(WorkerSettings(**values | settings), classifier, "boot")

    return make


BULK_FIRST = 6  # the turn that looks at the bulk lane first
SMALLEST = 1e-9  # seconds: a slice of one image


@pytest.fixture
def bag() -> bytes:
    """Another picture than the shirt."""
    return samples()["0018-bag.png"]


def begin_with_bulk(child: ClaimLoop) -> ClaimLoop:
    child._turn = itertools.count(BULK_FIRST)
    return child


def watch(monkeypatch: pytest.MonkeyPatch, before: Callable[[bytes], None]) -> None:
    """Have every upload seen before it is decoded."""

    add = ImageBatch.add

    def see(sheet: ImageBatch, upload: memoryview, *args: Any) -> None:
        before(bytes(upload))
        add(sheet, upload, *args)

    monkeypatch.setattr(ImageBatch, "add", see)


async def outcomes_of(store: Store, job_id: bytes) -> list[object]:
    return [item.outcome async for _, _, item in store.jobs.items(await store.get(job_id))]


async def test_a_slice_classifies_what_is_ready(store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes) -> None:
    jobs = [await store.submit(shirt) for _ in range(100)]

    make_claim_loop(slice_seconds=5).serve("task", MODEL)

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

    make_claim_loop().serve("task", MODEL)

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

    make_claim_loop().serve("task", MODEL)

    outcomes = [item.outcome async for _, _, item in store.jobs.items(await store.get(submission.id))]
    assert outcomes[0] == Failure(ItemCode.ITEM_TOO_LARGE)
    assert isinstance(outcomes[1], list)


async def test_a_slice_ends_in_time_and_rings_for_what_is_left(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    for _ in range(10):
        await store.submit(shirt)
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")

    make_claim_loop(slice_seconds=1e-6, batch_items=4).serve("task", MODEL)

    assert store.stat("transitions") == 4
    assert store.redis.llen(keys.QUEUE + MODEL) == 1


async def test_a_suspect_runs_image_by_image_and_notes_which(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt, shirt, shirt)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    child = make_claim_loop()
    noted, batches = [], []
    classify = child._work._classifier.classify
    monkeypatch.setattr(child, "_note", lambda token, item, _: noted.append(item))
    monkeypatch.setattr(
        child._work._classifier,
        "classify",
        lambda images, top_ks, until: batches.append(len(images)) or classify(images, top_ks),
    )

    child.serve("task", MODEL)

    assert (noted, batches) == ([0, 1, 2], [1, 1, 1])
    assert (await store.get(job_id)).state is JobState.COMPLETED


async def test_images_that_take_too_long_together_are_done_one_by_one_and_no_one_is_charged(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt, b"no image", shirt, shirt)
    child = make_claim_loop(slice_seconds=1e-6, task_time_limit_seconds=100)
    clock = 0.0

    def take_long(_: bytes) -> None:
        nonlocal clock
        clock += 30

    watch(monkeypatch, take_long)
    monkeypatch.setattr("time.monotonic", lambda: clock)
    done = []
    for _ in range(3):
        child.serve("task", MODEL)
        done.append((store.stat("transitions"), clock))

    # 2 of 4 together; then 2 of 4 that are kept; then the other 2
    assert done == [(0, 60), (0, 120), (4, 180)]
    job = await store.get(job_id)
    assert (job.succeeded, job.failed) == (3, 1)
    assert not store.redis.hexists(job_key(job_id), chunk_field("failure_counts", 0)), "nothing was charged"
    assert store.stat("records") == store.record_bytes(job_id)


async def test_a_poison_does_not_undo_what_was_done_before_it(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt, shirt, b"poison", shirt)
    child = make_claim_loop()
    seen = list[bytes]()

    def die_of_poison(upload: bytes) -> None:
        seen.append(upload[:6])
        if upload == b"poison":
            raise RuntimeError("dead")

    watch(monkeypatch, die_of_poison)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            child.serve("task", MODEL)
    child.serve("task", MODEL)

    good = shirt[:6]
    assert seen == [good, good, b"poison"] * 2 + [b"poison"] + [good]
    outcomes = [item.outcome async for _, _, item in store.jobs.items(await store.get(job_id))]
    assert outcomes[2] == Failure(ItemCode.WORKER_CRASHED)
    assert [isinstance(outcome, list) for outcome in outcomes] == [True, True, False, True]


async def test_an_image_that_has_killed_thrice_fails_untouched_and_its_neighbours_succeed(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes
) -> None:
    job_id = await store.submit(shirt, shirt, shirt)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    for attempt in range(2):
        lease = store.claim(owner_token(attempt, pid=2), turn=1)
        store.leases.renew(lease.token, at_item=1)
        store.leases.release(lease.token, ItemCode.WORKER_CRASHED)

    make_claim_loop().serve("task", MODEL)

    outcomes = [item.outcome async for _, _, item in store.jobs.items(await store.get(job_id))]
    assert outcomes[1] == Failure(ItemCode.WORKER_CRASHED)
    assert isinstance(outcomes[0], list)
    assert isinstance(outcomes[2], list)


async def test_a_fault_of_ours_charges_the_chunk_and_comes_to_an_end(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt)
    child = make_claim_loop()
    tries = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise ValueError("a fault of ours")

    monkeypatch.setattr(child._work._classifier, "classify", fail)
    for _ in range(3):
        with pytest.raises(ValueError, match="of ours"):
            child.serve("task", MODEL)
    child.serve("task", MODEL)

    job = await store.get(job_id)
    assert tries == 3
    assert job.single_item is not None
    assert job.single_item.outcome == Failure(ItemCode.WORKER_CRASHED)


async def test_when_redis_goes_away_in_the_middle_the_lease_is_given_back_uncharged(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(shirt)
    child = make_claim_loop()

    def lose_redis(*_: object) -> None:
        raise redis.exceptions.ConnectionError("gone")

    monkeypatch.setattr(child._work, "run", lose_redis)
    with pytest.raises(redis.exceptions.ConnectionError):
        child.serve("task", MODEL)

    lease = store.claim()
    assert len(lease.chunks) == 1
    assert (lease.chunks[0].failure_counts.lost_leases, lease.chunks[0].failure_counts.crashes) == (0, 0)


async def test_a_finish_whose_answer_is_lost_is_repeated_and_counts_once(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(shirt)
    child = make_claim_loop(slice_seconds=1e-6)
    finish = child._store.finish
    calls = 0

    def lose_the_first_answer(*args: object, **options: object) -> int:
        nonlocal calls
        calls += 1
        finished = finish(*args, **options)
        if calls == 1:
            raise redis.exceptions.TimeoutError("no answer")
        return finished

    monkeypatch.setattr(child._store, "finish", lose_the_first_answer)
    child.serve("task", MODEL)

    assert calls == 2
    assert store.stat("transitions") == 1


async def test_a_claim_whose_answer_is_lost_is_given_back(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(shirt)
    child = make_claim_loop()
    claim = child._store.claim

    def lose_the_answer(*args: object, **options: object) -> None:
        claim(*args, **options)
        raise redis.exceptions.TimeoutError("no answer")

    monkeypatch.setattr(child._store, "claim", lose_the_answer)
    with pytest.raises(redis.exceptions.TimeoutError):
        child.serve("task", MODEL)

    assert len(store.claim().chunks) == 1


async def test_chunks_of_a_job_that_was_canceled_meanwhile_are_let_go(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt)
    child = make_claim_loop()
    run = child._work.run

    def cancel_first(*args: object) -> object:
        store.redis.evalsha(load_scripts(0)["cancel"].sha1, 0, job_id, OWNER)
        return run(*args)

    monkeypatch.setattr(child._work, "run", cancel_first)
    child.serve("task", MODEL)

    assert (await store.get(job_id)).state is JobState.CANCELED
    assert store.redis.exists(keys.LEASES) == 0
    assert (store.stat(f"pending:{OWNER}"), store.stat("transitions"), store.stat("uploads")) == (0, 1, 0)


@pytest.mark.parametrize("change", ["cancel", "delete"])
async def test_a_bulk_lease_is_dropped_once_nobody_wants_its_images(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr("worker.classify.claim_loop.CANCELED_LOOK_SECONDS", 0)
    job_id = await store.submit(*[shirt] * 64, lane=Lane.BULK)
    seen = list[bytes]()
    loop = asyncio.get_running_loop()

    def change_at_the_tenth(upload: bytes) -> None:
        seen.append(upload)
        if len(seen) == 10:
            asyncio.run_coroutine_threadsafe(getattr(store.jobs, change)(job_id, OWNER), loop).result(10)

    watch(monkeypatch, change_at_the_tenth)
    await asyncio.to_thread(make_claim_loop(bulk_slice_seconds=SMALLEST).serve, "task", MODEL)

    assert len(seen) == 10
    assert store.redis.exists(keys.LEASES) == 0
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}")) == (0, 0)


async def test_interactive_work_is_served_between_the_slices_of_a_bulk_lease(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = await store.submit(*[shirt] * 5, lane=Lane.BULK)
    interactive = [await store.submit(bag) for _ in range(3)]
    seen = list[bytes]()
    watch(monkeypatch, seen.append)

    begin_with_bulk(make_claim_loop(bulk_slice_seconds=SMALLEST)).serve("task", MODEL)

    assert seen == [shirt, *[bag] * 3, *[shirt] * 4]
    for job_id in (bulk, *interactive):
        assert (await store.get(job_id)).state is JobState.COMPLETED
    assert store.stat("transitions") == 8
    assert store.redis.exists(keys.LEASES) == 0


async def test_interactive_work_that_comes_during_a_bulk_lease_waits_for_one_slice(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(*[shirt] * 64, lane=Lane.BULK)
    seen = list[bytes]()
    loop = asyncio.get_running_loop()

    def submit_at_the_tenth(upload: bytes) -> None:
        seen.append(upload)
        if len(seen) == 10:
            asyncio.run_coroutine_threadsafe(store.submit(bag), loop).result(10)

    watch(monkeypatch, submit_at_the_tenth)
    await asyncio.to_thread(make_claim_loop(bulk_slice_seconds=SMALLEST).serve, "task", MODEL)

    assert seen.index(bag) == 10
    assert len(seen) == 65


async def test_interactive_work_without_end_leaves_bulk_every_eighth_turn(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(*[shirt] * 3, lane=Lane.BULK)
    for _ in range(20):
        await store.submit(bag)
    seen = list[bytes]()
    watch(monkeypatch, seen.append)

    begin_with_bulk(make_claim_loop(bulk_slice_seconds=SMALLEST, batch_items=1, slice_seconds=5)).serve("task", MODEL)

    assert [at for at, upload in enumerate(seen) if upload == shirt] == [0, 8, 16]
    assert len(seen) == 23


async def test_where_images_are_cheap_a_bulk_claim_takes_more_of_them(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(*[shirt] * 320, lane=Lane.BULK)
    child = make_claim_loop(bulk_slice_seconds=10, slice_seconds=10)
    classify, batches = child._work._classifier.classify, list[int]()

    def count(images: Any, top_ks: Any, until: float) -> Any:
        batches.append(len(images))
        return classify(images, top_ks, until=until)

    monkeypatch.setattr(child._work._classifier, "classify", count)
    child.serve("task", MODEL)

    assert batches == [4, 60, 256]


async def test_a_bulk_lease_that_takes_too_long_goes_on_later_where_it_stopped(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(*[shirt] * 3, lane=Lane.BULK)
    child = make_claim_loop(slice_seconds=1e-6, task_time_limit_seconds=100)
    clock, leases = 0.0, 0

    def take_long(_: bytes) -> None:
        nonlocal clock
        clock += 30

    watch(monkeypatch, take_long)
    monkeypatch.setattr("time.monotonic", lambda: clock)
    while not (await store.get(job_id)).state.ended:
        child.serve("task", MODEL)
        leases += 1
        assert not store.redis.exists(keys.SUSPECTS + MODEL)

    assert (leases, clock) == (3, 90), "an image a lease, and none twice"
    assert not store.redis.hexists(job_key(job_id), chunk_field("failure_counts", 0)), "nothing was charged"
    assert all(isinstance(outcome, list) for outcome in await outcomes_of(store, job_id))
    assert store.stat("records") == store.record_bytes(job_id)


async def test_a_fault_on_an_interactive_image_leaves_the_bulk_lease_uncharged(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    bulk = await store.submit(*[shirt] * 3, lane=Lane.BULK)
    await store.submit(bag)

    def fail(upload: bytes) -> None:
        if upload == bag:
            raise ValueError("a fault of ours")

    watch(monkeypatch, fail)
    begin_with_bulk(make_claim_loop(bulk_slice_seconds=SMALLEST, slice_seconds=1e-6)).serve("task", MODEL)

    assert (await store.get(bulk)).state is JobState.COMPLETED
    assert not store.redis.hexists(job_key(bulk), chunk_field("failure_counts", 0))
    assert store.redis.llen(keys.SUSPECTS + MODEL) == 1
    assert store.redis.exists(keys.LEASES) == 0


async def test_when_redis_goes_away_between_two_slices_both_leases_are_given_back_uncharged(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = {await store.submit(*[shirt] * 3, lane=Lane.BULK), await store.submit(bag)}
    child = begin_with_bulk(make_claim_loop(bulk_slice_seconds=SMALLEST))
    claim = child._store.claim

    def lose_the_second_answer(*args: Any, **options: Any) -> Any:
        lease = claim(*args, **options)
        if not lease.bulk:
            raise redis.exceptions.TimeoutError("no answer")
        return lease

    monkeypatch.setattr(child._store, "claim", lose_the_second_answer)
    with pytest.raises(redis.exceptions.TimeoutError):
        child.serve("task", MODEL)

    assert store.redis.exists(keys.LEASES) == 0
    claimed = [store.claim(number).chunks[0] for number in range(2)]
    assert {one.chunk_ref.job_id for one in claimed} == jobs
    assert {(one.failure_counts.lost_leases, one.failure_counts.crashes) for one in claimed} == {(0, 0)}


async def test_a_poison_that_kills_a_child_with_two_leases_fails_alone(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Death(BaseException):
        """Ends the child at once, as a signal does."""

    bulk = await store.submit(*[shirt] * 10, lane=Lane.BULK)
    poison = await store.submit(shirt, b"poison", shirt)
    seen = list[bytes]()

    def die(upload: bytes) -> None:
        seen.append(upload)
        if upload == b"poison":
            raise Death

    watch(monkeypatch, die)
    child = begin_with_bulk(make_claim_loop(bulk_slice_seconds=SMALLEST, slice_seconds=5))
    held = list[int]()
    while True:
        try:
            child.serve("task", MODEL)
            break
        except Death:
            assert len(held) < 4
            tokens = store.leases.tokens_of(WORKER_ID, "task")
            held.append(len(tokens))
            for token in tokens:  # as the reaper does
                store.leases.release(token, ItemCode.WORKER_CRASHED)

    assert held == [2, 1, 1]
    assert seen.count(b"poison") == 3
    assert all(isinstance(outcome, list) for outcome in await outcomes_of(store, bulk))
    first, second, third = await outcomes_of(store, poison)
    assert (isinstance(first, list), second, isinstance(third, list)) == (True, Failure(ItemCode.WORKER_CRASHED), True)
    assert store.stat("transitions") == 13
    assert store.redis.exists(keys.LEASES) == 0


async def test_the_bytes_of_images_that_may_be_tried_again_are_kept(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = await store.submit(shirt, b"poison", b"no image")

    def fail(upload: bytes) -> None:
        if upload == b"poison":
            raise RuntimeError("dead")

    watch(monkeypatch, fail)
    child = make_claim_loop()
    for _ in range(3):
        with pytest.raises(RuntimeError):
            child.serve("task", MODEL)
    child.serve("task", MODEL)

    _, passing, lasting = await outcomes_of(store, job_id)
    assert (passing, lasting) == (Failure(ItemCode.WORKER_CRASHED), Failure(ItemCode.NOT_AN_IMAGE))
    kept = store.redis.hget(job_key(job_id), chunk_field("retained", 0))
    assert kept is not None
    assert unpack_retained(kept) == {1: b"poison"}


async def test_two_leases_are_kept_at_once(store: Store, valkey: Valkey) -> None:
    for _ in range(2):
        await store.submit(b"x")
    settings = WorkerSettings(redis_url=valkey.url, renew_seconds=0.1)
    tokens = [store.claim(number, items=1).token for number in range(2)]
    keeper = LeaseRenewer(settings, MODEL, Heartbeat(f"{MODEL}@1", "boot", 1))

    def earliest_end() -> float:
        return min(end for _, end in store.redis.zrange(keys.LEASES, 0, -1, withscores=True))

    before = earliest_end()
    with keeper.renewing(tokens[0]), keeper.renewing(tokens[1]):
        keeper.start()
        await eventually(lambda: earliest_end() > before + 1000, what="a second of renewals")
    keeper.stop()


async def test_a_worker_that_is_ending_keeps_its_leases_and_shows_no_presence(
    store: Store, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.submit(b"x")
    monkeypatch.setenv(notes._FOLDER, str(tmp_path))
    notes.write_stopping()
    token = store.claim(0).token
    keeper = LeaseRenewer(
        WorkerSettings(redis_url=valkey.url, renew_seconds=0.1), MODEL, Heartbeat(f"{MODEL}@1", "boot", 1)
    )
    before = store.redis.zscore(keys.LEASES, token) or 0
    with keeper.renewing(token):
        keeper.start()
        await eventually(
            lambda: (store.redis.zscore(keys.LEASES, token) or 0) > before + 500, what="half a second of renewals"
        )
    keeper.stop()
    assert not store.redis.exists(keys.HEARTBEATS + MODEL)


async def test_a_lease_is_kept_and_presence_shown_also_where_redis_is_full(store: Store, valkey: Valkey) -> None:
    await store.submit(b"x")
    settings = WorkerSettings(redis_url=valkey.url, lease_seconds=1, renew_seconds=0.1)
    token = store.leases.claim(MODEL, owner_token(0), items_max=64, bytes_max=1 << 26, turn=0).token
    keeper = LeaseRenewer(settings, MODEL, Heartbeat(f"{MODEL}@1", "boot", 1))
    store.redis.config_set("maxmemory", 1)
    with keeper.renewing(token):
        keeper.start()
        shown = await eventually(
            lambda: store.redis.zscore(keys.HEARTBEATS + MODEL, Heartbeat(f"{MODEL}@1", "boot", 1).pack()),
            what="presence",
        )
        end = store.redis.zscore(keys.LEASES, token) or 0
        await eventually(
            lambda: (store.redis.zscore(keys.LEASES, token) or 0) > end + 1000, what="a second of renewals"
        )
    keeper.stop()
    assert (store.redis.zscore(keys.HEARTBEATS + MODEL, Heartbeat(f"{MODEL}@1", "boot", 1).pack()) or 0) > shown
