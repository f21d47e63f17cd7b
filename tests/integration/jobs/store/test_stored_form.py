"""Records as a former release has written them, field for field, are read and worked on."""

from jobs.codec import pack_outcomes
from jobs.item_codes import ItemCode
from jobs.records import Failure, ItemState, Job, JobState, Lane, Outcome
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.webhooks import WebhookState, read_webhook
from jobs.store.for_workers.leases import FailureCounts
from jobs.webhooks import Attempt
from tests.support.store import COAT, MODEL, OWNER, Store

ID = bytes(range(16))
OTHER_ID = bytes(range(16, 32))
ENDED_RECORD = {
    "s": "c",
    "w": OWNER,
    "m": MODEL,
    "l": "b",
    "k": 3,
    "a": 1_700_000_000_000,
    "t": 1_700_000_000_500,
    "e": 1_700_000_001_000,
    "n": 3,
    "d": 2,
    "f": 1,
    "j": 4,
    "c": 2,
    "z": 700,
    "o": OTHER_ID,
    "h": "https://example.com/done",
    "ha": "[[1700000001500, 503, 20], [1700000002500, 204, 10]]",
    "i0": '["a.png", "b.png"]',
    "r0": pack_outcomes(f"{MODEL}@1", [COAT, Failure(ItemCode.WORKER_CRASHED)]),
    "b0": b"\x01\x00\x05\x00\x00\x00image",
    "i1": '["c.png"]',
    "r1": pack_outcomes(f"{MODEL}@1", [COAT]),
}


async def test_an_ended_job_of_a_former_release_is_read(store: Store, store_client: StoreClient) -> None:
    store.redis.hset(b"j:" + ID, mapping=ENDED_RECORD)

    job = await store.get(ID)

    assert job == Job(
        id=ID,
        owner=OWNER,
        model=MODEL,
        lane=Lane.BULK,
        state=JobState.COMPLETED,
        top_k=3,
        accepted_ms=1_700_000_000_000,
        ended_ms=1_700_000_001_000,
        total=3,
        succeeded=2,
        failed=1,
        chunks=2,
        failure_code=None,
        started_ms=1_700_000_000_500,
        skipped=4,
        webhook_url="https://example.com/done",
        retry_of=OTHER_ID,
    )
    items = [(item.name, item.state, item.outcome) async for _, _, item in store.jobs.items(job)]
    crashed: Outcome = Failure(ItemCode.WORKER_CRASHED)
    assert items == [
        ("a.png", ItemState.SUCCEEDED, COAT),
        ("b.png", ItemState.FAILED, crashed),
        ("c.png", ItemState.SUCCEEDED, COAT),
    ]
    assert [image async for image in store.jobs.retained_images(job)] == [("b.png", b"image")]
    webhook = await read_webhook(store_client, job)
    assert webhook.state is WebhookState.DELIVERED
    assert webhook.attempts == [Attempt(1_700_000_001_500, 503, 20), Attempt(1_700_000_002_500, 204, 10)]


async def test_a_queued_chunk_of_a_former_release_is_claimed_and_finished(store: Store) -> None:
    record = {"s": "q", "w": OWNER, "m": MODEL, "l": "i", "k": 5, "a": 1, "n": 1, "c": 1, "z": 350}
    counts = '{"losses":1,"crashes":0,"items":{"0":1},"code":"timeout"}'
    store.redis.hset(b"j:" + ID, mapping={**record, "x0": counts})
    store.redis.set(b"b:" + ID + bytes(4), b"\x03\x00\x00\x00abc")
    store.redis.rpush(f"q:{MODEL}:i:{OWNER}", ID + bytes(4) + b"\x00\x01" + b"\x00\x00\x00\x07")
    store.redis.rpush(f"ring:{MODEL}:i", OWNER)
    store.redis.hset("stats", mapping={"uploads": 103, "records": 350, "accepted": 1, f"pending:{OWNER}": 1})

    lease = store.claim()

    (claimed,) = lease.chunks
    assert claimed.upload == b"\x03\x00\x00\x00abc"
    assert claimed.failure_counts == FailureCounts(1, 0, {"0": 1}, "timeout")
    assert store.finish(lease) == 1
    assert (await store.get(ID)).state is JobState.COMPLETED
    assert (store.stat("uploads"), store.stat(f"pending:{OWNER}"), store.stat("drained")) == (0, 0, 103)
    assert store.redis.lrange(keys.ENDED, 0, -1) == [ID]
