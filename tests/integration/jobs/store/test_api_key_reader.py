"""Managed keys as an API process reads them."""

import pytest

from jobs.settings import StoreSettings
from jobs.store.for_api.api_key_reader import ApiKeyReader
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import KeyLimits, Scope
from jobs.store.for_api.client import StoreClient

DAY_MS = 86_400_000


async def test_a_clock_that_is_set_back_has_all_keys_read_again(
    store_client: StoreClient, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process has dropped those that had expired by the wrong clock."""
    ApiKeyRegistry(store_settings).create("alice", Scope.ALL, KeyLimits())
    reader, clock = ApiKeyReader(store_client), store_client.now_ms
    await store_client.ready()
    assert await reader.changed()
    monkeypatch.setattr(store_client, "now_ms", lambda: clock() + DAY_MS)
    assert await reader.changed() is None
    monkeypatch.setattr(store_client, "now_ms", clock)
    again = await reader.changed()
    assert again is not None
    assert [record.owner for record in again.records] == ["alice"]
    assert await reader.changed() is None
