import pytest

from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState
from jobs.store import keys
from jobs.store.for_workers.leases import PAUSED, RETURNED, WORKER_LOST, Lease
from tests.support.store import MODEL, OWNER, WORKER_ID, Store, owner_token

SUSPECT_TURN, OTHER_TURN = 1, 0
CRASHED = ItemCode.WORKER_CRASHED


def failure_of(lease: Lease, item: int = 0) -> Failure | None:
    return lease.chunks[0].failure_counts.failure_of(item, crash_tries_max=3, lost_leases_max=20)


async def test_returned_work_is_ready_at_once_uncharged_and_in_front(store: Store) -> None:
    first = await store.submit(b"one")
    lease = store.claim()
    second = await store.submit(b"two")

    assert store.leases.release(lease.token, RETURNED) == 1

    again = store.claim(owner_token(0, pid=2))
    assert [c.chunk_ref.job_id for c in again.chunks] == [first, second]
    assert again.chunks[0].failure_counts.lost_leases == 0
    assert not again.suspect


async def test_a_release_of_a_lease_that_was_renewed_since_does_nothing(store: Store) -> None:
    await store.submit(b"one")
    lease = store.claim()
    store.expire_lease(lease)
    ((token, end),) = store.leases.overdue(100).items()
    store.leases.renew(token)

    assert store.leases.release(token, WORKER_LOST, seen=end) == 0
    assert store.leases.overdue(100) == {}
    assert store.finish(lease) == 1


async def test_two_reapers_release_a_lease_once(store: Store) -> None:
    await store.submit(b"one")
    store.expire_lease(store.claim())
    ((token, end),) = store.leases.overdue(100).items()

    assert [store.leases.release(token, WORKER_LOST, seen=end) for _ in range(2)] == [1, 0]
    assert len(store.claim(owner_token(0, pid=2)).chunks) == 1


async def test_a_lease_from_before_the_clock_was_set_back_is_overdue(store: Store) -> None:
    """A live process would have renewed it by the new clock."""
    await store.submit(b"image")
    lease = store.claim()
    assert store.leases.overdue(10) == {}
    end = store.redis.zscore(keys.LEASES, lease.token) or 0
    store.redis.zadd(keys.LEASES, {lease.token: end + 20_000})
    assert store.leases.overdue(10) == {lease.token: f"{end + 20_000:.0f}"}
    assert store.leases.renew(lease.token)
    assert store.leases.overdue(10) == {}


async def test_lost_leases_are_charged_up_to_a_limit(store: Store) -> None:
    await store.submit(b"one")
    for losses in range(20):
        lease = store.claim()
        assert lease.suspect == (losses >= 2)
        assert failure_of(lease) is None
        store.leases.release(lease.token, WORKER_LOST)

    assert failure_of(store.claim()) == Failure(ItemCode.WORKER_LOST)


async def test_after_a_crash_each_chunk_runs_alone_on_every_second_claim(store: Store) -> None:
    suspects = {await store.submit(b"one"), await store.submit(b"two")}
    lease = store.claim()
    store.leases.release(lease.token, CRASHED)
    healthy = await store.submit(b"three")

    first = store.claim(owner_token(0, pid=2), turn=SUSPECT_TURN)
    assert first.suspect
    assert len(first.chunks) == 1
    assert [c.chunk_ref.job_id for c in store.claim(owner_token(1, pid=2), turn=OTHER_TURN).chunks] == [healthy]
    second = store.claim(owner_token(2, pid=2), turn=SUSPECT_TURN)
    assert {first.chunks[0].chunk_ref.job_id, second.chunks[0].chunk_ref.job_id} == suspects


async def test_suspects_are_taken_on_other_turns_when_nothing_else_is_ready(store: Store) -> None:
    await store.submit(b"one")
    store.leases.release(store.claim().token, CRASHED)
    assert store.claim(owner_token(0, pid=2), turn=OTHER_TURN).suspect


async def test_only_the_item_that_a_suspect_run_had_reached_is_charged(store: Store) -> None:
    await store.submit(*[b"image"] * 4)
    store.leases.release(store.claim().token, CRASHED)
    for attempt in range(2):
        lease = store.claim(owner_token(attempt, pid=2), turn=SUSPECT_TURN)
        assert failure_of(lease, 2) is None
        for item in range(3):
            store.leases.renew(lease.token, at_item=item)
        store.leases.release(lease.token, CRASHED)

    lease = store.claim(owner_token(0, pid=3), turn=SUSPECT_TURN)
    assert [failure_of(lease, item) for item in range(4)] == [None, None, Failure(CRASHED), None]


@pytest.mark.parametrize("reason", [ItemCode.TIMEOUT, ItemCode.OUT_OF_MEMORY])
async def test_the_last_crash_names_the_failure(store: Store, reason: ItemCode) -> None:
    await store.submit(b"one")
    for attempt in range(3):
        lease = store.claim(owner_token(pid=attempt), turn=SUSPECT_TURN)
        store.leases.release(lease.token, reason)

    assert failure_of(store.claim(turn=SUSPECT_TURN)) == Failure(reason)


async def test_a_suspect_that_is_lost_stays_a_suspect(store: Store) -> None:
    await store.submit(b"one")
    store.leases.release(store.claim().token, CRASHED)
    store.leases.release(store.claim(owner_token(0, pid=2), turn=SUSPECT_TURN).token, WORKER_LOST)

    lease = store.claim(owner_token(0, pid=3), turn=SUSPECT_TURN)
    assert lease.suspect
    assert (lease.chunks[0].failure_counts.crashes, lease.chunks[0].failure_counts.lost_leases) == (1, 1)


async def test_from_the_second_loss_on_each_chunk_runs_alone(store: Store) -> None:
    jobs = {await store.submit(b"one"), await store.submit(b"two")}
    for number in range(2):
        lease = store.claim(owner_token(0, pid=number))
        assert (lease.suspect, len(lease.chunks)) == (False, 2)
        store.leases.release(lease.token, WORKER_LOST)

    leases = [store.claim(owner_token(number, pid=2)) for number in range(2)]
    assert [(lease.suspect, len(lease.chunks)) for lease in leases] == [(True, 1)] * 2
    assert {lease.chunks[0].chunk_ref.job_id for lease in leases} == jobs


async def test_a_loss_counts_against_the_item_that_a_suspect_run_had_reached(store: Store) -> None:
    """Only that item ends at the limit of losses, and none of its neighbours."""
    await store.submit(*[b"image"] * 4)
    for number in range(20):
        lease = store.claim(owner_token(number))
        assert [failure_of(lease, item) for item in range(4)] == [None] * 4
        if lease.suspect:
            store.leases.renew(lease.token, at_item=2)
        store.leases.release(lease.token, WORKER_LOST)

    lease = store.claim(owner_token(0, pid=2))
    assert lease.chunks[0].failure_counts.lost_leases == 2
    assert [failure_of(lease, item) for item in range(4)] == [None, None, Failure(ItemCode.WORKER_LOST), None]


@pytest.mark.parametrize("reason", [WORKER_LOST, CRASHED])
async def test_what_ends_a_process_beside_a_suspect_is_not_charged_to_it(store: Store, reason: ItemCode) -> None:
    await store.submit(b"one", b"two")
    store.leases.release(store.claim().token, CRASHED)
    before = store.claim(owner_token(0, pid=2))
    store.leases.renew(before.token, at_item=1)
    store.leases.renew(before.token, at_item=PAUSED)
    store.leases.release(before.token, reason)

    after = store.claim(owner_token(0, pid=3))
    assert after.suspect
    assert after.chunks[0].failure_counts == before.chunks[0].failure_counts


async def test_owners_take_turns_with_their_suspects(store: Store) -> None:
    theirs = [await store.submit(b"one", owner="alice") for _ in range(20)]
    mine = await store.submit(b"two", owner="bob")
    store.leases.release(store.claim().token, CRASHED)

    taken = [store.claim(number, turn=SUSPECT_TURN).chunks[0].chunk_ref.job_id for number in range(21)]

    assert taken.index(mine) <= 1
    assert set(taken) == {mine, *theirs}


async def test_suspects_that_an_earlier_release_left_are_taken(store: Store) -> None:
    job_id = await store.submit(b"one")
    store.leases.release(store.claim().token, CRASHED)
    store.redis.rename(store.suspects(), keys.SUSPECTS + MODEL)
    store.redis.delete(f"{keys.ROTATION}{MODEL}:{keys.SUSPECT_LANE}")

    lease = store.claim(1, turn=SUSPECT_TURN)
    assert (lease.suspect, lease.chunks[0].chunk_ref.job_id) == (True, job_id)


async def test_chunks_of_a_canceled_job_are_dropped_when_their_lease_ends(store: Store) -> None:
    job_id = await store.submit(b"one")
    lease = store.claim()
    await store.jobs.cancel(job_id, OWNER)

    assert store.leases.release(lease.token, WORKER_LOST) == 0
    assert store.claim().chunks == []
    await store.jobs.sweep([])
    assert store.redis.keys(keys.UPLOAD + "*") == []
    assert (await store.get(job_id)).state is JobState.CANCELED


async def test_the_leases_of_one_task_are_found_by_their_prefix(store: Store) -> None:
    for task in ("a", "b"):
        await store.submit(b"one")
        store.claim(owner_token(task_id=task))
    assert store.leases.tokens_of(WORKER_ID, "a") == [owner_token(task_id="a")]


async def test_a_release_rings_the_doorbell(store: Store) -> None:
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    await store.submit(b"one")
    lease = store.claim()
    store.redis.delete(keys.QUEUE + MODEL)
    store.leases.release(lease.token, WORKER_LOST)
    assert store.redis.llen(keys.QUEUE + MODEL) == 1
