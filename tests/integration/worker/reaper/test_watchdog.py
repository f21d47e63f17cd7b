"""When a worker gives up: none of its children is ready, or it takes no doorbells."""

from collections.abc import Callable

import pytest

from jobs.store import keys
from jobs.store.keys import Heartbeat
from tests.support.store import MODEL, WORKER_ID, Store, owner_token
from worker.reaper.reaper import Reaper

MakeReaper = Callable[..., Reaper]
REF = f"{MODEL}@9"
TIMES = {"reap_seconds": 1, "watchdog_seconds": 5, "load_seconds_max": 20}  # scans are counted: no second passes
LONG_LEASES = {"lease_seconds": 20}  # heartbeats may then last for as long as a slow machine needs


@pytest.mark.parametrize("sign", ["it takes doorbells", "its children have leases"])
async def test_a_worker_that_shows_life_is_left_alone(store: Store, make_reaper: MakeReaper, sign: str) -> None:
    reasons = list[str]()
    reaper = make_reaper(give_up=reasons.append, **TIMES, **LONG_LEASES)
    store.leases.heartbeat([(MODEL, Heartbeat(REF, WORKER_ID, 1))], seconds=30)
    store.redis.lpush(keys.QUEUE + MODEL, b"a doorbell")
    await store.submit(b"slow")
    for _ in range(20):
        if sign == "it takes doorbells":
            reaper.doorbell_taken()
        elif not store.redis.exists(keys.LEASES):
            assert store.claim(owner_token(task_id="task9")).chunks
        reaper.run_once()
    assert reasons == []

    store.redis.delete(keys.LEASES)
    for _ in range(5):
        reaper.run_once()
    assert reasons == []
    reaper.run_once()
    assert reasons == ["doorbells wait, and this worker has taken none for 5 s"]


async def test_a_worker_that_loads_for_longer_than_the_watchdog_waits_is_left_alone(
    store: Store, make_reaper: MakeReaper
) -> None:
    reasons = list[str]()
    reaper = make_reaper(give_up=reasons.append, **TIMES, **LONG_LEASES)
    for _ in range(20):
        reaper.run_once()
    store.leases.heartbeat([(MODEL, Heartbeat(REF, WORKER_ID, 1))], seconds=30)
    store.redis.lpush(keys.QUEUE + MODEL, b"a doorbell")
    for _ in range(5):
        reaper.run_once()
    assert reasons == []
    reaper.run_once()
    assert reasons == ["doorbells wait, and this worker has taken none for 5 s"]

    reasons.clear()
    store.leases.remove_heartbeats(MODEL, WORKER_ID)
    for _ in range(5):
        reaper.run_once()
    assert reasons == []
    reaper.run_once()
    assert reasons == ["no child has been ready for 5 s"], "to lose them is another reason"

    reasons.clear()
    stuck = make_reaper(give_up=reasons.append, **TIMES)
    for _ in range(20):
        stuck.run_once()
    assert reasons == []
    stuck.run_once()
    assert reasons == ["no child has been ready for 20 s"]
