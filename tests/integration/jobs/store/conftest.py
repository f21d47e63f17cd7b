from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from signal import SIGCONT

import pytest

from jobs.settings import StoreSettings
from jobs.store.for_api.client import StoreClient
from tests.support.processes import Valkey

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
