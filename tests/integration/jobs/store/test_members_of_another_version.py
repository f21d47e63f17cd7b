"""Members of sets in Redis that another version of the workers wrote in another form are skipped, not stumbled over."""

from jobs.store import keys
from jobs.store.for_api.model_registry import ModelRegistry
from jobs.store.keys import Heartbeat, LoadError
from tests.support.store import MODEL, WORKER_ID, Store


async def test_leases_heartbeats_and_load_errors_in_another_form_are_skipped(store: Store) -> None:
    await store.submit(b"x")
    token = store.claim(0).token
    heartbeat, error = Heartbeat(f"{MODEL}@1", WORKER_ID, 1), LoadError(f"{MODEL}@2", WORKER_ID, "it | is broken")
    store.leases.heartbeat([(MODEL, heartbeat)], seconds=8)
    store.leases.show_load_errors(WORKER_ID, {error.model: error.reason}, seconds=30)
    now_ms = store.redis.time()[0] * 1000
    for key in (keys.LEASES, keys.HEARTBEATS + MODEL, keys.LOAD_ERRORS):
        store.redis.zadd(key, {"of another form": now_ms + 5000, "a|b|c|d|e|f": now_ms + 5000})

    assert store.leases.tokens_of(WORKER_ID) == [token]
    assert store.leases.ready_processes(MODEL) == [heartbeat]
    registry = ModelRegistry(store.store_client)
    store.redis.set(keys.DOORBELL_TEMPLATE + MODEL, "ring BELLID")
    assert await registry.ready_processes(MODEL) == [heartbeat]
    assert error in await registry.load_errors()

    store.leases.remove_heartbeats(MODEL, WORKER_ID)
    store.leases.show_load_errors(WORKER_ID, {}, seconds=0)
    assert heartbeat.pack().encode() not in store.redis.zrange(keys.HEARTBEATS + MODEL, 0, -1)
    assert error.pack().encode() not in store.redis.zrange(keys.LOAD_ERRORS, 0, -1)
