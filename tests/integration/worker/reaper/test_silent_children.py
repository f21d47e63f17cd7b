"""A child that has stopped, and what becomes of the suspect that it was at."""

from collections.abc import Callable

from jobs.item_codes import ItemCode
from jobs.store import keys
from jobs.store.for_workers.leases import WORKER_LOST, Lease
from jobs.store.keys import Heartbeat
from tests.support.store import MODEL, WORKER_ID, Store, owner_token
from worker.reaper.reaper import Reaper

MakeReaper = Callable[..., Reaper]
PID = 7


async def lapsed_suspect(store: Store, worker_id: str = WORKER_ID) -> Lease:
    """The lapsed lease of a suspect whose run has reached its second item."""
    await store.submit(b"one", b"two")
    for number in range(2):
        store.leases.release(store.claim(number).token, WORKER_LOST)
    lease = store.claim(owner_token(worker_id=worker_id, pid=PID))
    assert lease.suspect
    store.leases.renew(lease.token, at_item=1)
    store.expire_lease(lease)
    return lease


async def test_a_silent_child_is_killed_and_the_item_that_it_had_reached_is_charged_with_timeout(
    store: Store, make_reaper: MakeReaper
) -> None:
    await lapsed_suspect(store)
    killed = list[int]()
    reaper = make_reaper(kill_child=killed.append, watchdog_seconds=100)
    store.leases.heartbeat([(MODEL, Heartbeat(f"{MODEL}@9", WORKER_ID, PID))], seconds=5)
    reaper.run_once()
    store.leases.remove_heartbeats(MODEL, WORKER_ID)

    runs = 0
    while not killed:
        assert store.redis.exists(keys.LEASES), "the lapsed lease was released by another duty"
        reaper.run_once()
        runs += 1
        assert runs < 20

    counts = store.claim(owner_token(pid=8)).chunks[0].failure_counts
    assert (killed, counts.items, counts.code) == ([PID], {"1": 1}, ItemCode.TIMEOUT)
    assert (counts.lost_leases, counts.crashes) == (2, 0)
    for _ in range(20):
        reaper.run_once()
    assert killed == [PID]


async def test_a_lapsed_suspect_is_released_soon_if_its_worker_is_gone(store: Store, make_reaper: MakeReaper) -> None:
    await lapsed_suspect(store, worker_id="gone")
    reaper = make_reaper()
    reaper.run_once()
    reaper.run_once()
    assert store.claim(owner_token(pid=8)).chunks[0].failure_counts.items == {f"{keys.ITEM_LOST}1": 1}


async def test_a_lapsed_suspect_is_left_to_a_worker_that_lives_but_not_for_ever(
    store: Store, make_reaper: MakeReaper
) -> None:
    await lapsed_suspect(store, worker_id="other")
    reaper, runs = make_reaper(), 0
    while store.redis.exists(keys.LEASES):
        store.leases.show_alive("other", seconds=5)
        reaper.run_once()
        runs += 1
        assert runs < 30
    assert runs > 9
