import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import torch

from jobs.settings import StoreSettings
from jobs.store.client import StoreClient
from jobs.store.leases import LeaseStore
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import Store

TEST_DATA = Path(__file__).parent / "data"

# Settings come from the tests alone.
_NAMES = "HOST PORT REDIS_URL DATA_DIR API_KEYS MODEL MODELS DEFAULT_MODEL MAKEFLAGS MAKELEVEL"
for _name in _NAMES.split():
    os.environ.pop(_name, None)

torch.set_num_threads(1)  # as a worker's child does: tests run side by side, and threads that wait for a core spin


# Of files that run side by side, those that take a minute or more come first: the last one would run alone.
_LONG = ("test_poison.py", "test_renditions.py", "test_model.py", "test_faults.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in _LONG)


@pytest.fixture(scope="session")
def shirt() -> bytes:
    """A picture of a shirt: 28 × 28, gray, on white."""
    return (TEST_DATA / "0007-shirt.png").read_bytes()


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("vk")) as server:
        yield server


@pytest.fixture
def valkey(_valkey: Valkey) -> Valkey:
    """A real Valkey with nothing in it."""
    with _valkey.client as client:
        client.flushall()
        client.config_set("maxmemory", MAXMEMORY_BYTES)
    return _valkey


@pytest.fixture
def store_settings(valkey: Valkey) -> StoreSettings:
    return StoreSettings(redis_url=valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)


@pytest.fixture
async def store_client(store_settings: StoreSettings) -> AsyncIterator[StoreClient]:
    store_client = open_store_client(store_settings)
    yield store_client
    await store_client.close()


@pytest.fixture
def leases(store_settings: StoreSettings) -> Iterator[LeaseStore]:
    leases = LeaseStore(store_settings, lease_seconds=4, timeout_seconds=5)
    yield leases
    leases.close()


@pytest.fixture
def store(store_client: StoreClient, leases: LeaseStore, valkey: Valkey) -> Iterator[Store]:
    """Both sides of the store, and what a test looks at in it."""
    with valkey.client as client:
        yield Store(store_client, leases, client)


def open_store_client(settings: StoreSettings) -> StoreClient:
    store_client = StoreClient(settings, timeout_seconds=2)
    store_client.start()
    return store_client
