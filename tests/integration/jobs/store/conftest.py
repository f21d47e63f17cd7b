from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from signal import SIGCONT

import pytest

from jobs.settings import StoreSettings
from jobs.store.for_api.client import StoreClient
from jobs.store.for_api.spool_sweep import SpoolSweep
from jobs.store.for_workers.outbound import OutboundStore
from tests.conftest import open_store_client
from tests.support.processes import Valkey
from tests.support.store import Store

TIMEOUT_SECONDS = 1


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """A server of this test's own, which the test may stop and kill."""
    with Valkey(tmp_path / "vk") as server:
        yield server
        if server.running():
            server.signal(SIGCONT)


@pytest.fixture
async def short_client(server: Valkey) -> AsyncIterator[StoreClient]:
    """A client of it that waits for `TIMEOUT_SECONDS`."""
    store_client = StoreClient(
        StoreSettings(redis_url=server.url),
        timeout_seconds=TIMEOUT_SECONDS,
        group_submits_max=64,
        group_bytes_max=1 << 20,
    )
    store_client.start()
    await store_client.ready()
    yield store_client
    await store_client.close()


@pytest.fixture
async def small_store(valkey: Valkey, tmp_path: Path) -> AsyncIterator[Store]:
    """A store with budgets of 1,024 KiB for uploads, 614 KiB for records and 1 MiB for files."""
    settings = StoreSettings(
        redis_url=valkey.url,
        redis_maxmemory_bytes=2 << 20,
        uploads_url=f"file://{tmp_path}",
        uploads_spool_bytes_max=1 << 20,
        uploads_free_bytes_min=1,
    )
    store_client = open_store_client(settings)
    await store_client.ready()
    await SpoolSweep(store_client).run_once()
    with valkey.client as client, closing(OutboundStore(settings, lease_seconds=600, timeout_seconds=30)) as leases:
        yield Store(store_client, leases, client)
    await store_client.close()
