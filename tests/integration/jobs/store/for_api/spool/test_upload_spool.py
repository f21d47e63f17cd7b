"""Large uploads in a folder: written before their job is accepted, deleted when nothing needs them."""

import asyncio
import os
import zlib
from collections.abc import Awaitable
from pathlib import Path

import pytest

from jobs.codec import pack_upload
from jobs.errors import IdempotencyKeyReused, JobEnded, QueueFull, QuotaExceeded, StoreUnavailable
from jobs.records import Lane
from jobs.spool.folder import SUBFOLDER
from jobs.spool.names import SPOOLED_BYTES_MIN, Pointer
from jobs.store import keys
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_api.submission import ExistingJob
from jobs.store.for_api.submit import Submitter
from jobs.store.for_api.upload_spool import SharedCall
from tests.conftest import open_store_client
from tests.support.spool import LARGE, SIZE, Files, accept, submit
from tests.support.store import OWNER, Store, finished, make_chunk

# -- from submit to finish


async def test_a_large_upload_waits_in_the_folder_and_redis_has_a_pointer(store: Store, files: Files) -> None:
    job = await submit(store, LARGE)
    (name,) = files()
    stored = store.redis.get(keys.UPLOAD.encode() + job.id + bytes(4))
    assert Pointer.unpack(stored) == Pointer(name, SIZE, zlib.crc32(pack_upload([LARGE])))
    assert len(stored) <= keys.POINTER_BYTES
    assert store.redis.ttl(keys.UPLOAD.encode() + job.id + bytes(4)) == -1
    assert (store.stat("uploads"), store.stat("spooled")) == (keys.UPLOAD_KEY_BYTES + keys.POINTER_BYTES, SIZE)

    lease = store.claim()
    (claimed,) = lease.chunks
    assert (claimed.upload, claimed.file, claimed.chunk_ref.spooled) == (pack_upload([LARGE]), name, True)
    store.leases.finish(lease.token, [it._replace(file=name) for it in finished(lease)])
    assert (files(), store.stat("uploads"), store.stat("spooled"), store.stat("drained")) == (
        [], 0, 0, SIZE + keys.UPLOAD_KEY_BYTES + keys.POINTER_BYTES
    )  # fmt: skip


async def test_a_small_upload_waits_in_redis(store: Store, files: Files) -> None:
    small = bytes(SPOOLED_BYTES_MIN - 5)  # a length of 4 bytes is packed before it
    job = await submit(store, small)
    assert files() == []
    assert store.redis.get(keys.UPLOAD.encode() + job.id + bytes(4)) == pack_upload([small])
    await submit(store, small + b"x")
    assert len(files()) == 1


async def test_chunks_of_an_open_job_wait_there_too(store: Store, files: Files) -> None:
    job_id = await store.submit(LARGE, b"small", LARGE, chunk_items=1)
    assert len(files()) == 2
    uploads = [claimed.upload for claimed in store.claim().chunks]
    assert uploads == [pack_upload([LARGE]), pack_upload([b"small"]), pack_upload([LARGE])]
    assert store.stat("spooled") == 2 * SIZE
    assert (await store.get(job_id)).total == 3


async def test_claims_count_the_bytes_of_files(store: Store, sweep: SpoolSweep) -> None:
    for _ in range(3):
        await submit(store, LARGE)
    lease = store.leases.claim("fmnist-mlp", "w|t|1|0", items_max=8, bytes_max=2 * SIZE, turn=0)
    assert len(lease.chunks) == 2


async def test_a_late_finish_leaves_the_file_of_the_successor(store: Store, files: Files) -> None:
    await submit(store, LARGE)
    late = store.claim(0)
    store.leases.release(late.token, "returned")
    current = store.claim(1)
    (name,) = files()
    store.leases.finish(late.token, [it._replace(file=name) for it in finished(late)])
    assert files() == [name]
    store.leases.finish(current.token, [it._replace(file=name) for it in finished(current)])
    assert files() == []


@pytest.mark.parametrize("damage", ["lost", "damaged"])
async def test_a_lost_file_is_lost_for_its_chunk_alone(store: Store, files: Files, tmp_path: Path, damage: str) -> None:
    for _ in range(2):
        await submit(store, LARGE)
    broken = tmp_path / SUBFOLDER / files()[0]
    if damage == "lost":
        broken.unlink()
    else:
        broken.write_bytes(broken.read_bytes()[:-1])
    uploads = {claimed.file: claimed.upload for claimed in store.claim().chunks}
    assert uploads.pop(broken.name) is None
    assert list(uploads.values()) == [pack_upload([LARGE])]


async def test_no_upload_is_lost_while_the_folder_is_away(store: Store, files: Files, tmp_path: Path) -> None:
    await submit(store, LARGE)
    (tmp_path / SUBFOLDER).rename(tmp_path / "away")
    with pytest.raises(OSError, match="away"):
        store.claim(0)
    (tmp_path / "away").rename(tmp_path / SUBFOLDER)
    store.leases.release("worker1|task|1|0", "returned")
    assert [claimed.file for claimed in store.claim(1).chunks] == files()


# -- refusals leave nothing


async def test_a_refused_submit_leaves_no_file(store: Store, files: Files) -> None:
    submitter = Submitter(store.store_client, store.upload_budget, owner_pending_items_max=1)
    first = await submit(store, LARGE)
    before = store.keys()
    with pytest.raises(QuotaExceeded):
        await submit(store, LARGE, submitter=submitter)
    assert (len(files()), store.keys(), store.stat("spooled")) == (1, before, SIZE)

    keyed = await store.submission(LARGE)
    keyed.key, keyed.fingerprint = b"k" * 16, b"f" * 16
    await accept(store.submitter, keyed)
    assert len(files()) == 2
    repeat = await store.submission(LARGE)
    repeat.key, repeat.fingerprint = keyed.key, keyed.fingerprint
    assert await accept(store.submitter, repeat) == ExistingJob(keyed.id, keyed.fingerprint)
    other = await store.submission(LARGE + b"x")
    other.key, other.fingerprint = keyed.key, b"g" * 16
    with pytest.raises(IdempotencyKeyReused):
        await accept(store.submitter, other)
    assert {bytes.fromhex(name[:32]) for name in files()} == {first.id, keyed.id}
    assert len(files()) == 2


async def test_a_refused_chunk_leaves_no_file(store: Store, files: Files) -> None:
    part = await store.open()
    await store.open_jobs.add(part, make_chunk([LARGE], 0), bytes(16))
    await store.jobs.cancel(part.job_id, OWNER)
    with pytest.raises(JobEnded):
        await store.open_jobs.add(part, make_chunk([LARGE + b"x"], 1), bytes(16))
    assert len(files()) == 1, "that of the chunk before: the sweep deletes it"


async def test_beyond_the_budget_a_submit_is_refused_with_the_bytes_over_it(
    store: Store, files: Files, sweep: SpoolSweep
) -> None:
    for _ in range(4):
        await submit(store, LARGE)
    with pytest.raises(QueueFull) as refused:
        await submit(store, LARGE)  # by the script: the folder was last looked at when it was empty
    assert refused.value.over_bytes == SIZE
    await sweep.run_once()
    with pytest.raises(QueueFull) as refused:
        await submit(store, LARGE)  # without a write
    assert refused.value.over_bytes == SIZE
    assert len(files()) == 4
    await submit(store, b"small")
    lease = store.claim(items=1)
    store.leases.finish(lease.token, [it._replace(file=lease.chunks[0].file) for it in finished(lease)])
    await sweep.run_once()
    await submit(store, LARGE)


async def test_uploads_that_are_refused_for_memory_count_no_longer(store: Store, files: Files) -> None:
    budget_bytes = store.store_client.settings.uploads_budget_bytes
    store.upload_budget.reserve(budget_bytes, OWNER)
    with pytest.raises(QueueFull):
        await submit(store, LARGE)
    assert store.upload_budget.open_bytes == budget_bytes
    assert files() == []


async def test_bulk_jobs_leave_a_part_of_the_budget(store: Store, files: Files) -> None:
    part = await store.open(lane=Lane.BULK)
    for number in range(3):
        await store.open_jobs.add(part, make_chunk([LARGE], number), bytes(16))
    with pytest.raises(QueueFull):
        await store.open_jobs.add(part, make_chunk([LARGE], 3), bytes(16))
    assert len(files()) == 3
    await submit(store, LARGE)


async def test_a_stream_waits_for_room(store: Store, sweep: SpoolSweep) -> None:
    part = await store.open(lane=Lane.BULK)
    for number in range(3):
        await store.open_jobs.add(part, make_chunk([LARGE], number), bytes(16))
    waiting = asyncio.create_task(store.open_jobs.add(part, make_chunk([LARGE], 3), bytes(16)))
    await asyncio.wait([waiting], timeout=0.01)
    assert not waiting.done()
    lease = store.claim(items=1)
    store.leases.finish(lease.token, [it._replace(file=lease.chunks[0].file) for it in finished(lease)])
    await sweep.run_once()
    await waiting
    assert store.stat("spooled") == 3 * SIZE


async def test_the_reserve_of_free_space_is_kept(store: Store, files: Files, tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    reserve = disk.f_blocks * disk.f_frsize - 1  # something is always in use
    settings = store.store_client.settings.model_copy(update={"uploads_free_bytes_min": reserve})
    client = open_store_client(settings)
    try:
        await client.ready()
        await SpoolSweep(client).run_once()
        with pytest.raises(QueueFull) as refused:
            await client.spool.write(bytes(16), LARGE)
    finally:
        await client.close()
    assert refused.value.over_bytes > 0
    assert files() == []


async def test_another_stores_folder_takes_no_upload(
    store: Store, files: Files, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / SUBFOLDER / "store").write_text("another")
    client = open_store_client(store.store_client.settings)
    try:
        await client.ready()
        await SpoolSweep(client).run_once()
        with pytest.raises(StoreUnavailable):
            await client.spool.write(bytes(16), LARGE)
    finally:
        await client.close()
    assert files() == []
    assert "holds the uploads of another Redis" in caplog.text


async def test_a_folder_that_fails_refuses_uploads_until_it_is_back(
    store: Store, sweep: SpoolSweep, tmp_path: Path
) -> None:
    (tmp_path / SUBFOLDER).rename(tmp_path / "away")
    with pytest.raises(StoreUnavailable):
        await submit(store, LARGE)
    for _ in range(2):
        await sweep.run_once()
    assert not (tmp_path / SUBFOLDER).exists(), "the mount point of a file system that is away stays empty"
    (tmp_path / "away").rename(tmp_path / SUBFOLDER)
    await sweep.run_once()
    await submit(store, LARGE)


# -- one call for all who wait


async def test_callers_that_wait_share_one_call_that_began_after_them() -> None:
    begun, running, gate = list[int](), asyncio.Event(), asyncio.Event()

    async def call() -> None:
        begun.append(len(begun))
        running.set()
        await gate.wait()

    shared = SharedCall(call)
    first = asyncio.create_task(_await(shared()))
    await running.wait()
    later = [asyncio.create_task(_await(shared())) for _ in range(3)]
    await asyncio.wait(later, timeout=0.01)
    assert begun == [0], "the call that runs began before their writes"
    gate.set()
    await asyncio.gather(first, *later)
    assert begun == [0, 1]


async def _await(call: Awaitable[None]) -> None:
    await call
