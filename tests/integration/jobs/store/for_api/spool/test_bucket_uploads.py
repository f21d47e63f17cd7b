"""Large uploads in S3 (moto): the promise is that of a folder, and S3 may be away at any time."""

import threading
from collections.abc import Iterator

import pytest
from moto.s3.responses import S3Response

from jobs.codec import pack_retained, pack_upload
from jobs.errors import QueueFull, SettingsError, StoreUnavailable
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.settings import StoreSettings
from jobs.spool.bucket import SpoolBucket
from jobs.spool.names import Pointer, new_failed_name, new_upload_name
from jobs.spool.spool import SpoolAway
from jobs.store import keys
from jobs.store.for_api import upload_spool
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_workers import worker_spool
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.server_check import check_server
from jobs.store.server_rights import API
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.s3 import MotoS3, serving_s3
from tests.support.spool import BUDGET, LARGE, SIZE, Files, submit, until
from tests.support.store import OWNER, Store, finished

PREFIX = "waiting/uploads/"


@pytest.fixture
def s3() -> Iterator[MotoS3]:
    with serving_s3() as s3:
        s3.bucket("darkroom")
        yield s3


@pytest.fixture
def store_settings(valkey: Valkey, s3: MotoS3) -> StoreSettings:
    return StoreSettings(
        redis_url=valkey.url,
        redis_maxmemory_bytes=MAXMEMORY_BYTES,
        uploads_url="s3://darkroom/waiting",
        uploads_spool_bytes_max=BUDGET,
        upload_ttl_seconds=2,
        **s3.settings,
    )


@pytest.fixture
async def sweep(store: Store) -> SpoolSweep:
    """Lists S3 in each of its runs."""
    await store.store_client.ready()
    sweep = SpoolSweep(store.store_client)
    assert store.store_client.spool.spool is not None
    store.store_client.spool.spool.pass_seconds = 0
    await sweep.run_once()
    return sweep


@pytest.fixture
def files(s3: MotoS3, sweep: SpoolSweep) -> Files:
    return lambda: [key.removeprefix(PREFIX) for key in s3.keys("darkroom") if key.startswith(PREFIX)]


async def test_a_large_upload_waits_in_s3_until_it_is_finished(store: Store, files: Files) -> None:
    job = await submit(store, LARGE)
    (name,) = files()
    pointer = Pointer.unpack(store.redis.get(keys.UPLOAD.encode() + job.id + bytes(4)))
    assert pointer == Pointer.to(name, pack_upload([LARGE]))
    assert store.stat("spooled") == SIZE
    lease = store.claim()
    (claimed,) = lease.chunks
    assert (claimed.upload, claimed.file) == (pack_upload([LARGE]), name)
    assert files() == [name], "a worker that dies now must leave it to the next"
    store.leases.finish(lease.token, [it._replace(file=name) for it in finished(lease)])
    assert (files(), store.stat("uploads"), store.stat("spooled")) == ([], 0, 0)


async def test_failed_images_are_kept_in_s3_as_long_as_their_job(store: Store, sweep: SpoolSweep, files: Files) -> None:
    job = await submit(store, LARGE)
    lease = store.claim()
    given = [
        it._replace(retained=pack_retained([(0, LARGE)]), succeeded=0, file=lease.chunks[0].file)
        for it in finished(lease, Failure(ItemCode.TIMEOUT))
    ]
    store.leases.finish(lease.token, store.leases.with_kept_images(given))
    assert [name.rpartition(".")[2] for name in files()] == ["failed"]
    retained = store.jobs.retained_images(await store.get(job.id))
    assert [data async for _, data in retained] == [LARGE]
    await store.jobs.delete(job.id, OWNER)
    await until(sweep, lambda: files() == [])


async def test_beyond_the_budget_a_submit_is_refused(store: Store, files: Files) -> None:
    for _ in range(4):
        await submit(store, LARGE)
    with pytest.raises(QueueFull) as refused:
        await submit(store, LARGE)
    assert refused.value.over_bytes == SIZE
    assert len(files()) == 4


async def test_objects_without_a_job_are_deleted_by_age_and_foreign_ones_stay(
    store: Store, sweep: SpoolSweep, files: Files, s3: MotoS3
) -> None:
    accepted = await submit(store, LARGE)
    ended = await store.submit(LARGE)
    await store.jobs.cancel(ended, OWNER)
    never = await store.submitter.new_id(OWNER)
    orphans = {PREFIX + new_upload_name(never): b"", PREFIX + new_failed_name(accepted.id, 0): b""}
    foreign = ["darkroom/x", "waiting/holiday.jpg", f"{PREFIX}holiday.jpg", f"{PREFIX}deeper/{new_upload_name(never)}"]
    s3.put("darkroom", orphans | dict.fromkeys(foreign, b"not Darkroom's"))
    await sweep.run_once()
    await sweep.run_once()
    assert set(orphans) < set(s3.keys("darkroom")), "not at once: the job may be about to be accepted"
    await until(sweep, lambda: len(files()) == 3)
    kept = [key for key in s3.keys("darkroom") if accepted.id.hex() in key]
    assert sorted(s3.keys("darkroom")) == sorted([*foreign, *kept, "waiting/store"])
    assert len(kept) == 1


async def test_s3_is_listed_once_a_minute(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep, passes = SpoolSweep(store.store_client), list[None]()
    monkeypatch.setattr(SpoolBucket, "names", lambda self: iter(passes.append(None) or ()))
    for _ in range(3):
        await sweep.run_once()
    assert len(passes) == 1


# -- S3 is away


async def test_s3_away_in_a_submit_refuses_it_and_leaves_nothing(store: Store, sweep: SpoolSweep, s3: MotoS3) -> None:
    before = store.keys()
    with s3.away():
        with pytest.raises(StoreUnavailable):
            await submit(store, LARGE)  # notices it by itself
        await sweep.run_once()
        assert not store.store_client.spool.is_open
        with pytest.raises(StoreUnavailable):
            await submit(store, LARGE)  # is refused at once
        await submit(store, b"small")
    assert (store.stat("spooled"), len(store.keys()) > len(before)) == (0, True)
    await sweep.run_once()
    await submit(store, LARGE)


async def test_s3_that_hangs_is_refused_and_taken_again(
    store: Store, sweep: SpoolSweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool, hang = store.store_client.spool, threading.Event()
    monkeypatch.setattr(upload_spool, "LOOK_SECONDS_MAX", 0.1)
    with monkeypatch.context() as patched:
        patched.setattr(SpoolBucket, "room_bytes", lambda self: hang.wait() and 1)
        for _ in range(3):
            await sweep.run_once()
            assert not spool.is_open
        with pytest.raises(StoreUnavailable):
            await submit(store, LARGE)
    hang.set()
    monkeypatch.setattr(upload_spool, "LOOK_SECONDS_MAX", 30)
    await sweep.run_once()
    await submit(store, LARGE)


async def test_s3_away_in_a_claim_loses_and_charges_nothing(store: Store, files: Files, s3: MotoS3) -> None:
    await submit(store, LARGE)
    with s3.away(), pytest.raises(SpoolAway):
        store.claim(0)
    store.leases.release("worker1|task|1|0", "returned")
    (claimed,) = store.claim(1).chunks
    assert (claimed.upload, claimed.failure_counts.lost_leases) == (pack_upload([LARGE]), 0)


async def test_a_deleted_object_is_lost_for_its_chunk_alone(store: Store, files: Files, s3: MotoS3) -> None:
    for _ in range(2):
        await submit(store, LARGE)
    lost = files()[0]
    s3.delete("darkroom", PREFIX + lost)
    uploads = {claimed.file: claimed.upload for claimed in store.claim().chunks}
    assert uploads.pop(lost) is None
    assert list(uploads.values()) == [pack_upload([LARGE])]


async def test_a_claim_gives_up_on_s3_that_hangs(
    store: Store, store_settings: StoreSettings, files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    await submit(store, LARGE)
    leases, hang = LeaseStore(store_settings, lease_seconds=0.4, timeout_seconds=30), threading.Event()
    monkeypatch.setattr(worker_spool, "_READ_SECONDS_MAX", 0.2)
    monkeypatch.setattr(leases._spool._spool, "read", lambda pointer: hang.wait())
    with pytest.raises(SpoolAway, match="could not be read in"):
        leases.claim("fmnist-mlp", "slow|t|1|0", items_max=8, bytes_max=2 * SIZE, turn=0)
    hang.set()
    leases.close()


# -- at start


async def test_a_prefix_without_rights_stops_the_service(
    store: Store, store_settings: StoreSettings, s3: MotoS3
) -> None:
    s3.deny("darkroom", "s3:PutObject", "waiting/")
    with pytest.raises(SettingsError, match="does not allow to write objects below s3://darkroom/waiting"):
        check_server(store_settings, API)


ACCESS_DENIED = "<Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"


async def test_a_prefix_that_may_not_be_listed_stops_the_service(
    store: Store, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """moto applies no policy to lists of a bucket: here it answers as S3 does without `s3:ListBucket`."""
    monkeypatch.setattr(S3Response, "list_objects_v2", lambda self: (403, {}, ACCESS_DENIED))
    with pytest.raises(SettingsError, match="does not allow to list objects below s3://darkroom/waiting"):
        check_server(store_settings, API)


async def test_s3_that_is_away_does_not_stop_the_service(
    store: Store, store_settings: StoreSettings, s3: MotoS3, caplog: pytest.LogCaptureFixture
) -> None:
    with s3.away():
        check_server(store_settings, API)
    assert "cannot reach UPLOADS_URL yet" in caplog.text
