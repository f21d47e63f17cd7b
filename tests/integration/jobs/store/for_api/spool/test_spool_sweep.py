"""Files of large uploads that no job needs are deleted; large failed images are kept for a retry."""

from pathlib import Path

import pytest

from jobs.codec import pack_retained
from jobs.item_codes import ItemCode
from jobs.records import Failure
from jobs.spool.folder import SUBFOLDER
from jobs.spool.names import new_failed_name, new_upload_name
from jobs.store import keys
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_api.submission import Submission
from tests.support.spool import LARGE, SIZE, Files, submit, until
from tests.support.store import OWNER, Store, finished

# -- what no job needs is deleted


@pytest.mark.parametrize("end", ["cancel", "delete"])
async def test_the_files_of_an_ended_job_are_deleted(store: Store, sweep: SpoolSweep, files: Files, end: str) -> None:
    waiting = await submit(store, LARGE)
    job_id = await store.submit(LARGE, LARGE, chunk_items=1)
    await (store.jobs.cancel if end == "cancel" else store.jobs.delete)(job_id, OWNER)
    await store.jobs.sweep(["fmnist-mlp"])
    assert store.stat("spooled") == SIZE
    await until(sweep, lambda: len(files()) == 1)
    assert files()[0].startswith(waiting.id.hex())


async def test_a_file_without_a_job_is_deleted_after_the_time_to_live_of_an_upload(
    store: Store, sweep: SpoolSweep, files: Files, tmp_path: Path
) -> None:
    accepted = await submit(store, LARGE)
    job_id = await store.submitter.new_id(OWNER)
    (tmp_path / SUBFOLDER / new_upload_name(job_id)).write_bytes(b"the API was killed before the job was accepted")
    (tmp_path / SUBFOLDER / new_failed_name(accepted.id, 0)).write_bytes(b"the worker was killed before its finish")
    await sweep.run_once()
    assert len(files()) == 3, "not at once: the job may be about to be accepted"
    await until(sweep, lambda: len(files()) == 1)
    assert files()[0].startswith(accepted.id.hex())


async def test_foreign_files_stay_and_are_logged_once(
    sweep: SpoolSweep, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("holiday.jpg", "0" * 32 + ".upload"):
        (tmp_path / SUBFOLDER / name).touch()
    await sweep.run_once()
    for _ in range(5):
        await sweep.run_once()
    assert len(files()) == 2
    assert [record.getMessage() for record in caplog.records if "files" in record.getMessage()] == [
        "UPLOADS_URL has 2 files that are not Darkroom's; they stay"
    ]


# -- failed images for a retry


async def fail(store: Store, image: bytes) -> Submission:
    """A job whose only image failed and is retained."""
    job = await submit(store, image)
    lease = store.claim()
    given = [
        it._replace(retained=pack_retained([(0, image)]), succeeded=0, file=lease.chunks[0].file)
        for it in finished(lease, Failure(ItemCode.TIMEOUT))
    ]
    store.leases.finish(lease.token, store.leases.with_kept_images(given))
    return job


async def retained(store: Store, job: Submission) -> list[bytes]:
    return [data async for _, data in store.jobs.retained_images(await store.get(job.id))]


async def test_large_failed_images_are_kept_in_the_folder_as_long_as_their_job(
    store: Store, sweep: SpoolSweep, files: Files
) -> None:
    job = await fail(store, LARGE)
    kept = len(pack_retained([(0, LARGE)]))
    (name,) = files()
    assert name.endswith(".failed")
    assert store.record_bytes(job.id) < 2000
    assert (store.stat("spooled"), store.stat("uploads")) == (kept, 0)
    await sweep.run_once()
    assert await retained(store, job) == [LARGE]

    await store.jobs.delete(job.id, OWNER)
    assert store.stat("spooled") == 0
    await until(sweep, lambda: files() == [])


async def test_small_failed_images_are_retained_in_redis(store: Store, files: Files) -> None:
    job = await fail(store, b"small")
    assert files() == []
    assert await retained(store, job) == [b"small"]


async def test_failed_images_are_kept_up_to_half_of_the_budget(store: Store, sweep: SpoolSweep, files: Files) -> None:
    jobs = [await fail(store, LARGE) for _ in range(3)]
    assert [len(await retained(store, job)) for job in jobs] == [1, 0, 0], "twice 256 KiB and some are more than half"
    await until(sweep, lambda: len(files()) == 1)


async def test_kept_images_that_are_lost_are_left_out(store: Store, files: Files, tmp_path: Path) -> None:
    job = await fail(store, LARGE)
    (tmp_path / SUBFOLDER / files()[0]).unlink()
    assert await retained(store, job) == []


async def test_expired_jobs_give_back_what_they_kept(
    store: Store, store_client: StoreClient, sweep: SpoolSweep
) -> None:
    job = await fail(store, LARGE)
    store.redis.hincrby(keys.JOB.encode() + job.id, keys.FIELDS["ended_ms"], -(10**9))
    await store.jobs.sweep(["fmnist-mlp"])
    assert store.stat("spooled") == 0
    assert store_client.spool.is_open
    await sweep.run_once()
