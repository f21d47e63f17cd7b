"""Suspects: chunks that run image by image, because a process died, failed or was too slow at work on them."""

import asyncio
from typing import Any

import pytest

from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState, Lane
from jobs.store import keys
from jobs.store.for_workers.leases import PAUSED, LeaseStore
from jobs.store.job_hash import chunk_field, job_key, upload_key
from tests.support.claim_loops import BULK_FIRST, SMALLEST, BeforeDecode, MakeClaimLoop, outcomes_of
from tests.support.store import MODEL, OWNER, WORKER_ID, Store, owner_token
from worker.inference.classifier import Classifier

SUSPECT_FIRST = 1  # a turn that takes a suspect before anything else


async def test_a_suspect_runs_image_by_image_and_records_which(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    loop_store: LeaseStore,
    classifier: Classifier,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = await store.submit(shirt, shirt, shirt)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    started, batches = list[int](), list[int]()
    classify, renew = classifier.classify, loop_store.renew

    def count(images: Any, top_ks: Any, until: float) -> Any:
        batches.append(len(images))
        return classify(images, top_ks, until=until)

    def record_start(token: str, *, at_item: int, progress: bytes) -> bool:
        started.append(at_item)
        return renew(token, at_item=at_item, progress=progress)

    monkeypatch.setattr(classifier, "classify", count)
    monkeypatch.setattr(loop_store, "renew", record_start)

    make_claim_loop(store=loop_store).run_slice("task", MODEL)

    assert (started, batches) == ([0, 1, 2], [1, 1, 1])
    assert (await store.get(job_id)).state is JobState.COMPLETED


async def test_images_that_take_too_long_together_are_done_one_by_one_and_count_no_failure(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    shirt: bytes,
    before_decode: BeforeDecode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = await store.submit(shirt, b"no image", shirt, shirt)
    claim_loop = make_claim_loop(slice_seconds=1e-6, task_time_limit_seconds=100)
    clock = 0.0

    def take_long(_: bytes) -> None:
        nonlocal clock
        clock += 30

    before_decode(take_long)
    monkeypatch.setattr("time.monotonic", lambda: clock)
    done = []
    for _ in range(2):
        claim_loop.run_slice("task", MODEL)
        done.append((store.stat("transitions"), clock))

    # 2 of 4 together, with their progress stored; then the other 2
    assert done == [(0, 60), (4, 120)]
    job = await store.get(job_id)
    assert (job.succeeded, job.failed) == (3, 1)
    assert not store.redis.hexists(job_key(job_id), chunk_field("failure_counts", 0)), "no failure was counted"
    assert store.stat("records") == store.record_bytes(job_id)


@pytest.mark.parametrize(
    ("upload", "progress", "codes"),
    [
        (None, b"\xff of a later release", [None, None]),
        (b"?", b"", [ItemCode.UPLOAD_LOST] * 2),
    ],
)
async def test_a_chunk_that_cannot_be_read_ends(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    shirt: bytes,
    upload: bytes | None,
    progress: bytes,
    codes: list[ItemCode | None],
) -> None:
    job_id = await store.submit(shirt, shirt)
    if progress:
        store.redis.hset(job_key(job_id), chunk_field("progress", 0), progress)
    if upload is not None:
        store.redis.set(upload_key(job_id, 0), upload)
    make_claim_loop().run_slice("task", MODEL)
    outcomes = [item.outcome async for _, _, item in store.jobs.items(await store.get(job_id))]
    assert [it.code if isinstance(it, Failure) else None for it in outcomes] == codes


async def test_a_suspect_run_lets_interactive_work_in_between(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, before_decode: BeforeDecode
) -> None:
    suspect = await store.submit(*[shirt] * 8)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    seen, reached = list[bytes](), list[int]()
    arrivals = iter([await store.submission(bag)])

    def note(upload: bytes) -> None:
        if (submission := next(arrivals, None)) is not None:  # it arrives while the first image is at work
            asyncio.run_coroutine_threadsafe(store.submitter.enqueue(submission), loop).result()
        seen.append(upload)
        (_, item) = next(iter(store.redis.hgetall(keys.SUSPECT_ITEM).items()))
        reached.append(int(item))

    before_decode(note)
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(make_claim_loop(first_turn=SUSPECT_FIRST).run_slice, "task", MODEL)

    assert seen == [shirt, bag, *[shirt] * 7]
    assert reached == [0, PAUSED, *range(1, 8)]
    assert (await store.get(suspect)).state is JobState.COMPLETED


async def test_a_suspect_run_stops_when_its_job_is_canceled(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    shirt: bytes,
    before_decode: BeforeDecode,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.classify.claim_loop.CANCELED_CHECK_SECONDS", 0)
    job_id = await store.submit(*[shirt] * 8)
    store.leases.release(store.claim().token, ItemCode.WORKER_CRASHED)
    seen = list[bytes]()

    def cancel(upload: bytes) -> None:
        if not seen:
            asyncio.run_coroutine_threadsafe(store.jobs.cancel(job_id, OWNER), loop).result()
        seen.append(upload)

    before_decode(cancel)
    loop = asyncio.get_running_loop()
    await asyncio.to_thread(make_claim_loop(first_turn=SUSPECT_FIRST).run_slice, "task", MODEL)

    assert len(seen) == 1
    assert store.redis.exists(keys.LEASES) == 0


async def test_a_poison_does_not_undo_what_was_done_before_it(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, before_decode: BeforeDecode
) -> None:
    job_id = await store.submit(shirt, shirt, b"poison", shirt)
    claim_loop = make_claim_loop()
    seen = list[bytes]()

    def die_of_poison(upload: bytes) -> None:
        seen.append(upload[:6])
        if upload == b"poison":
            raise RuntimeError("dead")

    before_decode(die_of_poison)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            claim_loop.run_slice("task", MODEL)
    claim_loop.run_slice("task", MODEL)

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

    make_claim_loop().run_slice("task", MODEL)

    outcomes = [item.outcome async for _, _, item in store.jobs.items(await store.get(job_id))]
    assert outcomes[1] == Failure(ItemCode.WORKER_CRASHED)
    assert isinstance(outcomes[0], list)
    assert isinstance(outcomes[2], list)


async def test_a_bug_of_ours_counts_like_a_crash_and_ends_after_three_tries(
    store: Store,
    make_claim_loop: MakeClaimLoop,
    classifier: Classifier,
    shirt: bytes,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job_id = await store.submit(shirt)
    claim_loop = make_claim_loop()
    tries = 0

    def fail(*_: object, **__: object) -> None:
        nonlocal tries
        tries += 1
        raise ValueError("a bug of ours")

    for name in ("classify", "classify_quick"):
        monkeypatch.setattr(classifier, name, fail)
    for _ in range(3):
        with pytest.raises(ValueError, match="of ours"):
            claim_loop.run_slice("task", MODEL)
    claim_loop.run_slice("task", MODEL)

    job = await store.get(job_id)
    assert tries == 3
    assert job.single_item is not None
    assert job.single_item.outcome == Failure(ItemCode.WORKER_CRASHED)


async def test_a_poison_that_kills_a_child_with_two_leases_fails_alone(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, before_decode: BeforeDecode
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

    before_decode(die)
    claim_loop = make_claim_loop(first_turn=BULK_FIRST, bulk_slice_seconds=SMALLEST, slice_seconds=30)
    leases_at_death = list[int]()
    while True:
        try:
            claim_loop.run_slice("task", MODEL)
            break
        except Death:
            assert len(leases_at_death) < 4
            tokens = store.leases.tokens_of(WORKER_ID, "task")
            leases_at_death.append(len(tokens))
            for token in tokens:  # as the reaper does
                store.leases.release(token, ItemCode.WORKER_CRASHED)

    assert leases_at_death == [2, 1, 1]
    assert seen.count(b"poison") == 3
    assert all(isinstance(outcome, list) for outcome in await outcomes_of(store, bulk))
    first, second, third = await outcomes_of(store, poison)
    assert (isinstance(first, list), second, isinstance(third, list)) == (True, Failure(ItemCode.WORKER_CRASHED), True)
    assert store.stat("transitions") == 13
    assert store.redis.exists(keys.LEASES) == 0


async def test_a_bug_on_an_interactive_image_counts_no_failure_of_the_bulk_lease(
    store: Store, make_claim_loop: MakeClaimLoop, shirt: bytes, bag: bytes, before_decode: BeforeDecode
) -> None:
    bulk = await store.submit(*[shirt] * 3, lane=Lane.BULK)
    await store.submit(bag)

    def fail(upload: bytes) -> None:
        if upload == bag:
            raise ValueError("a bug of ours")

    before_decode(fail)
    make_claim_loop(first_turn=BULK_FIRST, bulk_slice_seconds=SMALLEST, slice_seconds=1e-6).run_slice("task", MODEL)

    assert (await store.get(bulk)).state is JobState.COMPLETED
    assert not store.redis.hexists(job_key(bulk), chunk_field("failure_counts", 0))
    assert store.redis.llen(store.suspects()) == 1
    assert store.redis.exists(keys.LEASES) == 0
