"""The daily quota of an API key: the scripts that accept images count them, together with the accept."""

import asyncio
import dataclasses

import pytest

from jobs.errors import DailyQuotaExceeded, IdempotencyKeyReused, QueueFull, QuotaExceeded, Unauthorized
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.item_quota import ItemQuota
from jobs.store.for_api.open_job_parts import Part
from jobs.store.for_api.submission import ExistingJob, Submission
from jobs.store.for_api.submit import Submitter
from jobs.store.keys import DAY_MS
from tests.conftest import open_store_client
from tests.support.processes import Valkey
from tests.support.store import OWNER, Store, chunk_of, make_chunk, make_upload_budget

DIGEST = bytes(16)
KEY_ID = "0123456789ab"


def quota_of(per_day: int | None, pending_max: int | None = None) -> ItemQuota:
    quota = ItemQuota(KEY_ID)
    quota.per_day, quota.pending_max = per_day, pending_max
    return quota


async def submission_of(store: Store, quota: ItemQuota, items: int = 1, *, owner: str = OWNER) -> Submission:
    submission = await store.submission(*[b"image"] * items, owner=owner)
    submission.quota = quota
    return submission


def counters(store: Store) -> dict[bytes, int]:
    return {name: int(store.redis.get(name)) for name in store.redis.keys(keys.ITEMS_OF_DAY + "*")}


def left(store: Store, quota: ItemQuota) -> int:
    items, seconds = quota.left(store.store_client.now_ms()) or (None, None)
    assert items is not None
    assert seconds is not None
    assert 0 < seconds <= 86_400
    return items


async def test_accepted_images_count_for_the_utc_day_and_the_counter_expires(store: Store) -> None:
    quota = quota_of(10)
    await store.submitter.enqueue(await submission_of(store, quota, 3))
    await store.submitter.enqueue(await submission_of(store, quota, 4, owner="another-owner"))

    seconds, _ = store.redis.time()
    name = f"{keys.ITEMS_OF_DAY}{KEY_ID}:{seconds // 86_400}".encode()
    assert counters(store) == {name: 7}
    assert left(store, quota) == 3
    assert store.redis.pexpiretime(name) == (seconds // 86_400 + 1) * DAY_MS + 3_600_000


async def test_a_submit_over_the_quota_is_refused_whole_and_a_smaller_one_accepted(store: Store) -> None:
    quota = quota_of(5)
    await store.submitter.enqueue(await submission_of(store, quota, 3))
    before = store.keys()

    with pytest.raises(DailyQuotaExceeded, match=r"5 images a day \(UTC\), and 2 are left") as refused:
        await store.submitter.enqueue(await submission_of(store, quota, 3))

    assert 0 < refused.value.retry_after_seconds <= 86_400
    assert store.keys() == before
    assert list(counters(store).values()) == [3], "what is refused does not count"
    await store.submitter.enqueue(await submission_of(store, quota, 2))
    assert left(store, quota) == 0


async def test_submits_that_share_a_call_share_the_quota(store: Store) -> None:
    quota, other = quota_of(25), ItemQuota("another-key")
    other.per_day = 2
    submissions = [await submission_of(store, quota) for _ in range(40)]
    submissions += [await submission_of(store, other) for _ in range(3)]

    outcomes = await asyncio.gather(*map(store.submitter.enqueue, submissions), return_exceptions=True)

    kinds = [type(outcome) for outcome in outcomes]
    assert kinds == [int] * 25 + [DailyQuotaExceeded] * 15 + [int] * 2 + [DailyQuotaExceeded]
    assert sorted(counters(store).values()) == [2, 25]
    assert store.stat(f"pending:{OWNER}") == 27


@pytest.mark.parametrize("settings", [{"uploads_budget_fraction": 1e-6}, {"records_budget_fraction": 1e-7}])
async def test_what_a_budget_refuses_does_not_count(store: Store, valkey: Valkey, settings: dict[str, float]) -> None:
    client = open_store_client(StoreSettings(redis_url=valkey.url, **settings))
    submitter = Submitter(client, make_upload_budget(client.settings), owner_pending_items_max=100)
    submission = await store.submission(b"x" * 1000)
    submission.quota = quota_of(10)
    with pytest.raises(QueueFull):
        await submitter.enqueue(submission)
    await client.close()
    assert counters(store) == {}


async def test_the_repeat_of_an_idempotency_key_does_not_count(store: Store) -> None:
    quota = quota_of(3)
    first = await submission_of(store, quota, 2)
    first.key, first.fingerprint = b"k" * 16, b"f" * 16
    await store.submitter.enqueue(first)

    for fingerprint, repeated in ((b"f" * 16, ExistingJob(first.id, b"f" * 16)), (b"g" * 16, IdempotencyKeyReused)):
        again = await submission_of(store, quota, 2)
        again.key, again.fingerprint = first.key, fingerprint
        if isinstance(repeated, ExistingJob):
            assert await store.submitter.enqueue(again) == repeated
        else:
            with pytest.raises(repeated):
                await store.submitter.enqueue(again)
    assert list(counters(store).values()) == [2]


async def test_each_chunk_of_an_open_job_counts_once(store: Store) -> None:
    quota = quota_of(5)
    part = await opened(store, quota)
    assert counters(store) == {}, "an open job has no images"
    await store.open_jobs.add(part, make_chunk([b"image"] * 3, 0), DIGEST)
    part.chunks = 0  # as if the reply had been lost
    await store.open_jobs.add(part, make_chunk([b"image"] * 3, 0), DIGEST)
    assert list(counters(store).values()) == [3]
    assert left(store, quota) == 2

    with pytest.raises(DailyQuotaExceeded, match="and 2 are left"):
        await store.open_jobs.add(part, make_chunk([b"image"] * 3, 3), DIGEST)

    assert list(counters(store).values()) == [3]
    assert len(store.redis.keys(f"{keys.UPLOAD}*")) == 1, "the bytes of the refused chunk are deleted"
    await store.open_jobs.add(part, None, DIGEST, done=True)
    assert list(counters(store).values()) == [3], "the end of a part has no images"


async def test_the_lower_of_two_limits_of_pending_images_counts(store: Store) -> None:
    submitter = Submitter(store.store_client, store.upload_budget, owner_pending_items_max=3)
    with pytest.raises(QuotaExceeded):
        await submitter.enqueue(await submission_of(store, quota_of(None, 2), 3))
    with pytest.raises(QuotaExceeded):
        await submitter.enqueue(await submission_of(store, quota_of(None, 9), 4))
    await submitter.enqueue(await submission_of(store, quota_of(None, 2), 2))
    with pytest.raises(QuotaExceeded):
        await submitter.enqueue(await submission_of(store, quota_of(None, 2)))
    await submitter.enqueue(await store.submission())
    assert store.stat(f"pending:{OWNER}") == 3
    assert counters(store) == {}, "without a daily quota nothing is counted"


async def test_a_key_that_has_ended_accepts_nothing_more(store: Store) -> None:
    """Its uploads that began before are broken off at the next chunk."""
    quota = quota_of(None)
    part = await opened(store, quota)
    await store.open_jobs.add(part, make_chunk([b"image"], 0), DIGEST)
    quota.key_ended = True
    with pytest.raises(Unauthorized):
        await store.open_jobs.add(part, make_chunk([b"image"], 1), DIGEST)
    with pytest.raises(Unauthorized):
        await store.submitter.enqueue(await submission_of(store, quota))
    assert (await store.get(part.job_id)).total == 1


async def test_bytes_that_were_written_before_the_key_has_ended_are_deleted(store: Store) -> None:
    quota = quota_of(None)
    submission = await submission_of(store, quota)
    await store.submitter.write_upload(submission, chunk_of(submission))
    quota.key_ended = True
    with pytest.raises(Unauthorized):
        await store.submitter.enqueue(submission)
    assert store.redis.keys(keys.UPLOAD + "*") == []


async def opened(store: Store, quota: ItemQuota) -> Part:
    return dataclasses.replace(await store.open(), quota=quota)
