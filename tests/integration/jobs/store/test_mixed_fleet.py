"""Workers with other settings, and what another release has written, or this one cannot read."""

from contextlib import closing

import pytest

from jobs.codec import REFUSED, unpack_outcomes, unpack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_workers.leases import WORKER_LOST, FailureCounts, LeaseStore
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.keys import OwnerToken
from tests.support.store import MODEL, Store
from worker.lease_client import ClaimLimits, LeaseClient

LIMITS = ClaimLimits(items_max=64, unshared_items=64, bulk_items_max=64, bytes_max=1 << 20, turn=0)


async def test_a_worker_with_short_leases_does_not_end_the_long_ones_of_another(
    store: Store, store_settings: StoreSettings
) -> None:
    await store.submit(b"image")
    with closing(LeaseStore(store_settings, lease_seconds=30, timeout_seconds=30)) as patient:
        lease = LeaseClient(patient, "patient", lease_seconds=30).claim(MODEL, "task", LIMITS)
        assert store.leases.overdue(10) == {}
        assert patient.renew(lease.token)
        assert store.leases.overdue(10) == {}
        assert patient.overdue(10) == {}

    end = store.redis.zscore(keys.LEASES, lease.token) or 0
    store.redis.zadd(keys.LEASES, {lease.token: end + 60_000})  # the clock was set back
    assert list(store.leases.overdue(10)) == [lease.token]


def test_tokens_of_both_forms_are_read() -> None:
    assert OwnerToken.unpack(b"worker|task|1|2") == OwnerToken("worker", "task", 1, 2)
    token = OwnerToken("worker", "task", 1, 2, 4000)
    assert OwnerToken.unpack(token.pack()) == token


@pytest.mark.parametrize(
    ("stored", "read"),
    [
        (b'{"losses":2,"crashes":1,"items":{"3":1},"code":"timeout"}', FailureCounts(2, 1, {"3": 1}, ItemCode.TIMEOUT)),
        (b'{"losses":2}', FailureCounts(2)),
        (b'{"losses":2,"of a later release":[1]}', FailureCounts(2)),
        (b'{"crashes":3,"code":"of a later release"}', FailureCounts(crashes=3)),
        (b"\x00 no JSON", FailureCounts()),
        (b"[1]", FailureCounts()),
    ],
)
async def test_charges_of_another_release_are_read_or_count_nothing(
    store: Store, stored: bytes, read: FailureCounts
) -> None:
    job_id = await store.submit(b"image")
    store.redis.hset(job_key(job_id), chunk_field("failure_counts", 0), stored)
    lease = store.claim()
    assert lease.chunks[0].failure_counts == read
    assert store.leases.release(lease.token, WORKER_LOST) == 1
    assert store.claim(1).chunks[0].failure_counts.lost_leases == read.lost_leases + 1


def test_a_code_of_a_later_release_fails_that_item_alone() -> None:
    unknown = (REFUSED + 200).to_bytes(4, "little")
    first, second = unpack_upload(unknown + (5).to_bytes(4, "little") + b"image", 2)
    assert first is ItemCode.UNSUPPORTED_FORMAT
    assert not isinstance(second, ItemCode)
    assert bytes(second) == b"image"
    later_code, later_format = 63, 255 - 23  # the last of each
    ref, outcomes = unpack_outcomes(b"\x03m@1" + bytes((0, later_code)) + bytes((0, later_format)) + bytes((0, 1)))
    assert ref == "m@1"
    assert outcomes == [*[Failure(ItemCode.UNSUPPORTED_FORMAT)] * 2, Failure(ItemCode.NOT_AN_IMAGE)]
