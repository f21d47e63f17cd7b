"""Writes the append-only file and the uploads of a small store, to be kept: later releases must finish its jobs.

    python -m tests.support.store_fixture tests/stores/NAME

Run it with the code of the release, once; `tests/integration/jobs/store/test_earlier_releases.py` reads what it wrote.
"""

import asyncio
import shutil
import sys
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import redis

from jobs.codec import pack_outcomes, pack_retained, pack_upload
from jobs.item_codes import ItemCode
from jobs.records import Failure, Lane
from jobs.settings import StoreSettings
from jobs.spool.names import SPOOLED_BYTES_MIN
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_api.submission import Chunk
from jobs.store.for_workers.leases import WORKER_LOST, FinishedChunk, LeaseStore
from tests.conftest import open_store_client
from tests.support.processes import Valkey
from tests.support.store import COAT, MODEL, Store, chunk_of, make_chunk, owner_token
from tests.support.waiting import wait_until

DIGEST = bytes(16)
UPLOADS = "uploads"  # the folder of large uploads, beside the append-only file


async def fill(store: Store) -> None:
    """One job in each state that a worker or the sweep may meet."""
    completed = await store.submit(b"completed", owner="alice")
    store.finish(store.claim())
    failed = await store.submit(b"failed", b"good")
    lease = store.claim()
    outcomes = pack_outcomes(f"{MODEL}@1", [Failure(ItemCode.TIMEOUT), COAT])
    retained = pack_retained([(0, b"failed")])
    store.leases.finish(lease.token, [FinishedChunk(lease.chunks[0].chunk_ref, 1, outcomes, retained)])
    canceled = await store.submit(*[b"canceled"] * 4, chunk_items=2)
    await store.jobs.cancel(canceled, "public")
    assert len({completed, failed, canceled}) == 3

    await store.submit(b"crashed", b"crashed")
    store.leases.release(store.claim(1).token, ItemCode.WORKER_CRASHED)
    await store.submit(b"suspect at work", b"which died at its second image")
    store.leases.release(store.claim(2).token, ItemCode.OUT_OF_MEMORY)
    for number in range(2):  # the first is given back, the second is at work
        lease = store.claim(owner_token(number, pid=2), turn=1)
        assert lease.suspect
        store.leases.renew(lease.token, at_item=0)
        store.leases.renew(lease.token, at_item=1, progress=pack_outcomes(f"{MODEL}@1", [COAT]))
        if number == 0:
            store.leases.release(lease.token, ItemCode.WORKER_CRASHED)
    await store.submit(b"lost")
    store.leases.release(store.claim(owner_token(3)).token, WORKER_LOST)

    bulk = await store.submit(*[b"bulk"] * 8, chunk_items=2, lane=Lane.BULK, owner="alice", name="a name")
    store.finish(store.claim(owner_token(4), items=2, turn=6))
    assert store.claim(owner_token(5), items=2, turn=6).chunks, "a lease that nobody renews"
    assert bulk

    opened = await store.open(owner="bob")
    opened.name = b"one part"
    await store.open_jobs.begin(opened)
    await store.open_jobs.add(opened, make_chunk([b"open"] * 3, 0), DIGEST)
    by_reference = await store.open(owner="bob")
    urls = pack_upload([b"http://example.com/a.png"])
    await store.open_jobs.add(by_reference, Chunk(["a"], len(urls), urls, by_reference=True), DIGEST)
    await store.open_jobs.seal(by_reference.job_id, "bob")
    await store.submit(b"waits")

    keyed = await store.submission(b"with a key and a webhook")
    keyed.key, keyed.fingerprint, keyed.webhook_url = DIGEST, DIGEST, "https://example.com/hook"
    await store.submitter.enqueue(keyed)
    spooled = await store.submission(bytes(SPOOLED_BYTES_MIN))
    await store.submitter.write_upload(spooled, chunk_of(spooled))
    await store.submitter.enqueue(spooled)


async def fill_server(settings: StoreSettings, client: "redis.Redis[bytes]") -> None:
    store_client = open_store_client(settings)
    await store_client.ready()
    await SpoolSweep(store_client).run_once()
    with closing(LeaseStore(settings, lease_seconds=4, timeout_seconds=30)) as leases:
        await fill(Store(store_client, leases, client))
    await store_client.close()


def write(folder: Path) -> None:
    with TemporaryDirectory() as data, Valkey(Path(data)) as server, server.client as client:
        client.config_set("aof-use-rdb-preamble", "no")  # commands, which any server reads
        uploads = Path(data) / UPLOADS
        uploads.mkdir()
        settings = StoreSettings(
            redis_url=server.url,
            redis_maxmemory_bytes=256 << 20,
            uploads_url=f"file://{uploads}",
            uploads_free_bytes_min=1,
        )
        asyncio.run(fill_server(settings, client))
        client.bgrewriteaof()
        wait_until(lambda: not client.info("persistence")["aof_rewrite_in_progress"], what="the rewrite")
        shutil.copytree(next(Path(data).glob("appendonly*")), folder)
        shutil.copytree(uploads, folder / UPLOADS)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
