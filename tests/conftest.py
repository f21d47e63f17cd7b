import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import torch

from jobs.settings import StoreSettings
from jobs.store.for_api.client import StoreClient
from jobs.store.for_workers.leases import LeaseStore
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import Store

TEST_DATA = Path(__file__).parent / "data"

# Only the tests set settings.
_NAMES = "HOST BIND DOMAIN PORT REDIS_URL DATA_DIR API_KEYS MODEL MODELS DEFAULT_MODEL MAKEFLAGS MAKELEVEL"
for _name in _NAMES.split():
    os.environ.pop(_name, None)

REPLY_SECONDS = 30  # that tests wait for Redis: far beyond any pause of a busy machine

torch.set_num_threads(1)  # as in a worker's child: test files run in parallel, and threads that wait for a core spin

# Beginnings of names of files that take a minute or more: they start first, so that none runs alone at the end.
_LONG = (
    "test_poison",
    "test_faults",
    "test_imagenet",
    "test_training",
    "test_renditions",
    "test_reference_model",
    "test_versions",
    "test_interrupted",
    "test_stack",
    "test_blocks",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for name in _LONG:
        assert any(Path(__file__).parent.rglob(f"{name}*.py")), f"{name} in _LONG names no file"
    items.sort(key=lambda item: not item.path.name.startswith(_LONG))


@pytest.fixture(scope="session")
def shirt() -> bytes:
    """An image of a shirt: 28 × 28, gray, on white."""
    return (TEST_DATA / "0007-shirt.png").read_bytes()


@pytest.fixture(scope="session")
def _valkey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("vk")) as server:
        yield server


@pytest.fixture
def valkey(_valkey: Valkey) -> Valkey:
    """A real Valkey server, empty."""
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
    leases = LeaseStore(store_settings, lease_seconds=4, timeout_seconds=REPLY_SECONDS)
    yield leases
    leases.close()


@pytest.fixture
def store(store_client: StoreClient, leases: LeaseStore, valkey: Valkey) -> Iterator[Store]:
    """Both sides of the store, and its keys for assertions."""
    with valkey.client as client:
        yield Store(store_client, leases, client)


def open_store_client(settings: StoreSettings) -> StoreClient:
    store_client = StoreClient(settings, timeout_seconds=REPLY_SECONDS)
    store_client.start()
    return store_client
