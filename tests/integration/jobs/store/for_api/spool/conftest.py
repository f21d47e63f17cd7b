"""A store whose large uploads wait in a folder."""

from collections.abc import Callable
from pathlib import Path

import pytest

from jobs.settings import StoreSettings
from jobs.spool.folder import SUBFOLDER
from jobs.store.for_api.spool_sweep import SpoolSweep
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.spool import BUDGET
from tests.support.store import Store


@pytest.fixture
def store_settings(valkey: Valkey, tmp_path: Path) -> StoreSettings:
    return StoreSettings(
        redis_url=valkey.url,
        redis_maxmemory_bytes=MAXMEMORY_BYTES,
        uploads_url=f"file://{tmp_path}",
        uploads_spool_bytes_max=BUDGET,
        uploads_free_bytes_min=1,
        upload_ttl_seconds=2,
    )


@pytest.fixture
async def sweep(store: Store) -> SpoolSweep:
    sweep = SpoolSweep(store.store_client)
    await store.store_client.ready()
    await sweep.run_once()
    return sweep


@pytest.fixture
def files(tmp_path: Path, sweep: SpoolSweep) -> Callable[[], list[str]]:
    return lambda: sorted(path.name for path in (tmp_path / SUBFOLDER).iterdir() if path.name != "store")
