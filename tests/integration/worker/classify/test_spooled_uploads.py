"""The claim loop with uploads in a folder."""

from pathlib import Path

import pytest

from jobs.item_codes import ItemCode
from jobs.records import Failure, JobState, Lane
from jobs.settings import StoreSettings
from jobs.spool.folder import SUBFOLDER
from jobs.spool.names import SPOOLED_BYTES_MIN
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.job_hash import chunk_field, job_key
from tests.support.claim_loops import BULK_FIRST, MakeClaimLoop
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import MODEL, Store, chunk_of


@pytest.fixture
def store_settings(valkey: Valkey, tmp_path: Path) -> StoreSettings:
    return StoreSettings(
        redis_url=valkey.url,
        redis_maxmemory_bytes=MAXMEMORY_BYTES,
        uploads_url=f"file://{tmp_path}",
        uploads_free_bytes_min=1,
    )


async def submit(store: Store, image: bytes) -> bytes:
    await store.store_client.ready()
    await SpoolSweep(store.store_client).run_once()
    submission = await store.submission(image)
    await store.submitter.write_upload(submission, chunk_of(submission))
    await store.submitter.enqueue(submission)
    return submission.id


def files(folder: Path) -> list[str]:
    return [path.suffix for path in (folder / SUBFOLDER).glob("*.*")]


async def test_a_finished_chunks_file_is_deleted(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, shirt: bytes, tmp_path: Path
) -> None:
    job_id = await submit(store, shirt + bytes(SPOOLED_BYTES_MIN))
    assert files(tmp_path) == [".upload"]
    make_claim_loop(store=leases).run_slice("task", MODEL)
    assert (await store.get(job_id)).state is JobState.COMPLETED
    assert files(tmp_path) == []


async def test_a_large_failed_image_is_kept_and_can_be_tried_again(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, shirt: bytes, tmp_path: Path
) -> None:
    image = shirt + bytes(SPOOLED_BYTES_MIN)
    job_id = await submit(store, image)
    for _ in range(3):
        leases.release(store.claim(turn=1).token, ItemCode.TIMEOUT)
    make_claim_loop(store=leases, first_turn=1).run_slice("task", MODEL)
    job = await store.get(job_id)
    assert job.single_item is not None
    assert job.single_item.outcome == Failure(ItemCode.TIMEOUT)
    assert files(tmp_path) == [".failed"]
    assert [data async for _, data in store.jobs.retained_images(job)] == [image]


async def test_bulk_work_is_not_charged_because_the_folder_is_away_between_its_slices(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, shirt: bytes, tmp_path: Path
) -> None:
    bulk = await store.submit(*[shirt] * 12, lane=Lane.BULK)
    loop = make_claim_loop(store=leases, first_turn=BULK_FIRST)
    await submit(store, shirt + bytes(SPOOLED_BYTES_MIN))
    (tmp_path / SUBFOLDER).rename(tmp_path / "away")
    with pytest.raises(OSError, match="away"):
        loop.run_slice("task", MODEL)
    assert store.redis.hexists(job_key(bulk), chunk_field("failure_counts", 0)) == 0
    (tmp_path / "away").rename(tmp_path / SUBFOLDER)
    loop.run_slice("task", MODEL)
    assert (await store.get(bulk)).state is JobState.COMPLETED


async def test_a_folder_that_is_away_for_a_while_loses_nothing(
    store: Store, leases: LeaseStore, make_claim_loop: MakeClaimLoop, shirt: bytes, tmp_path: Path
) -> None:
    job_id = await submit(store, shirt + bytes(SPOOLED_BYTES_MIN))
    loop = make_claim_loop(store=leases)
    (tmp_path / SUBFOLDER).rename(tmp_path / "away")
    with pytest.raises(OSError, match="away"):
        loop.run_slice("task", MODEL)
    (tmp_path / "away").rename(tmp_path / SUBFOLDER)
    loop.run_slice("task", MODEL)
    job = await store.get(job_id)
    assert job.single_item is not None
    assert (job.state, job.succeeded) == (JobState.COMPLETED, 1)
