"""The thread that renews leases and sends heartbeats, on a real store."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest

from jobs.store import keys
from jobs.store.keys import Heartbeat
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import MODEL, WORKER_ID, Store
from tests.support.waiting import eventually
from worker.lease_client import ClaimLimits, LeaseClient
from worker.lease_renewer import LeaseRenewer
from worker.process_state import ProcessState
from worker.settings import LeasingSettings

MakeLeaseRenewer = Callable[..., LeaseRenewer]
SERVED = [(MODEL, f"{MODEL}@1")]


@pytest.fixture
def make_lease_renewer(valkey: Valkey, process_state: ProcessState) -> Iterator[MakeLeaseRenewer]:
    made = list[LeaseRenewer]()

    def make(served: list[tuple[str, str]] = SERVED, **settings: float) -> LeaseRenewer:
        values = {"redis_url": valkey.url, "redis_maxmemory_bytes": MAXMEMORY_BYTES, "renew_seconds": 0.1}
        made.append(LeaseRenewer(LeasingSettings(**values | settings), served, WORKER_ID, process_state))
        return made[-1]

    yield make
    for renewer in made:
        renewer.stop()


def lease_end(store: Store, token: str) -> float:
    return store.redis.zscore(keys.LEASES, token) or 0


def heartbeats(store: Store, model: str = MODEL) -> dict[str, float]:
    """The models that processes of this name serve, with the end of their heartbeats."""
    members = store.redis.zrange(keys.HEARTBEATS + model, 0, -1, withscores=True)
    return {Heartbeat.unpack(member).ref: end for member, end in members}


async def test_a_lease_is_renewed_while_its_uploads_are_read(
    store: Store, make_lease_renewer: MakeLeaseRenewer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A slow line: without that, the lease lapses before work begins, each time, at every worker."""
    await store.submit(b"x")
    renewer, read_on, mget = make_lease_renewer(), threading.Event(), store.leases._redis.mget
    renewer.start()

    def read_slowly(names: list[bytes]) -> list[bytes]:
        assert read_on.wait(60)
        return list(mget(names))

    monkeypatch.setattr(store.leases._redis, "mget", read_slowly)
    client = LeaseClient(store.leases, WORKER_ID, lease_seconds=4, renewing=renewer.renewing)
    limits = ClaimLimits(items_max=1, unshared_items=1, bulk_items_max=1, bytes_max=1, turn=0)
    claiming = asyncio.create_task(asyncio.to_thread(client.claim, MODEL, "task", limits))

    def last_end() -> float:
        found = store.redis.zrange(keys.LEASES, -1, -1, withscores=True)
        return found[0][1] if found else 0

    first = await eventually(last_end, what="the lease")
    try:
        await eventually(lambda: last_end() > first + 1000, what="a second of renewals")
    finally:
        read_on.set()
    assert len((await claiming).chunks) == 1


async def test_two_leases_are_renewed_at_once(store: Store, make_lease_renewer: MakeLeaseRenewer) -> None:
    for _ in range(2):
        await store.submit(b"x")
    tokens = [store.claim(number, items=1).token for number in range(2)]
    renewer = make_lease_renewer()

    before = [lease_end(store, token) for token in tokens]
    with renewer.renewing(tokens[0]), renewer.renewing(tokens[1]):
        renewer.start()
        await eventually(
            lambda: all(lease_end(store, token) > end + 1000 for token, end in zip(tokens, before, strict=True)),
            what="a second of renewals",
        )


async def test_one_thread_sends_the_heartbeats_of_several_models(
    store: Store, make_lease_renewer: MakeLeaseRenewer
) -> None:
    for _ in range(4):
        await store.submit(b"x")
    tokens = [store.claim(number, items=1).token for number in range(4)]
    renewer = make_lease_renewer([("first", "first@1"), ("second", "second@2"), ("second", "second@10")])

    before = [lease_end(store, token) for token in tokens]
    with renewer.renewing(tokens[0]), renewer.renewing(tokens[1]), renewer.renewing(tokens[2]):
        renewer.start()
        await eventually(
            lambda: all(lease_end(store, token) > end + 500 for token, end in zip(tokens[:3], before, strict=False)),
            what="renewals of the three",
        )
    assert heartbeats(store, "first").keys() == {"first@1"}
    assert heartbeats(store, "second").keys() == {"second@2", "second@10"}
    assert lease_end(store, tokens[3]) == before[3], "another process's lease is not renewed"


async def test_a_task_past_its_time_limit_is_not_renewed(store: Store, make_lease_renewer: MakeLeaseRenewer) -> None:
    for _ in range(2):
        await store.submit(b"x")
    late, on_time = (store.claim(number, items=1).token for number in range(2))
    renewer = make_lease_renewer(lease_seconds=0.5, task_time_limit_seconds=2)
    with renewer.renewing(late):
        renewer.start()
        await eventually(lambda: late in store.leases.overdue(2), what="the end of the late lease")
        claimed_until = lease_end(store, on_time)
        with renewer.renewing(on_time):
            await eventually(lambda: lease_end(store, on_time) != claimed_until, what="a renewal")
        assert late in store.leases.overdue(2)


async def test_a_worker_that_stops_renews_its_leases_and_sends_no_heartbeats(
    store: Store, make_lease_renewer: MakeLeaseRenewer, process_state: ProcessState
) -> None:
    await store.submit(b"x")
    process_state.write_stopping()
    token = store.claim(0).token
    renewer = make_lease_renewer()
    before = lease_end(store, token)
    with renewer.renewing(token):
        renewer.start()
        await eventually(lambda: lease_end(store, token) > before + 500, what="half a second of renewals")
    assert not heartbeats(store)


async def test_a_full_redis_takes_renewals_and_heartbeats(store: Store, make_lease_renewer: MakeLeaseRenewer) -> None:
    await store.submit(b"x")
    token = store.claim(0).token
    renewer = make_lease_renewer(lease_seconds=1)
    store.redis.config_set("maxmemory", 1)
    with renewer.renewing(token):
        renewer.start()
        (first,) = await eventually(lambda: heartbeats(store).values(), what="a heartbeat")
        before = lease_end(store, token)
        await eventually(lambda: lease_end(store, token) > before + 1000, what="a second of renewals")
    assert heartbeats(store)[f"{MODEL}@1"] > first


async def test_a_lease_does_not_wait_for_the_heartbeats_of_many_models(store: Store) -> None:
    await store.submit(b"x")
    token = store.claim(0).token
    before, reads = lease_end(store, token), store.redis.info("stats")["total_reads_processed"]
    served = [(f"m{number}", Heartbeat(f"m{number}@1", WORKER_ID, 1)) for number in range(100)]

    store.leases.heartbeat(served, seconds=30, tokens=[token])

    assert store.redis.info("stats")["total_reads_processed"] - reads < 10, "one round trip, of one or a few packets"
    assert lease_end(store, token) > before
    assert heartbeats(store, "m99").keys() == {"m99@1"}


async def test_heartbeats_reach_a_server_that_has_lost_its_scripts(store: Store) -> None:
    store.redis.script_flush()
    store.leases.heartbeat([(MODEL, Heartbeat(f"{MODEL}@{version}", WORKER_ID, 1)) for version in (1, 2)], seconds=30)
    assert heartbeats(store).keys() == {f"{MODEL}@1", f"{MODEL}@2"}
