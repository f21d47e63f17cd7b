"""The managed keys as the operator's command changes them."""

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import ApiKeyError, StoreUnavailable
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api import api_key_registry
from jobs.store.for_api.api_key_registry import ApiKeyRegistry, has_managed_keys
from jobs.store.for_api.api_keys import KeyLimits, Scope
from tests.support.processes import Valkey

LIMITS = KeyLimits(requests_per_second=10, items_per_day=1000)
HOUR_MS = 3_600_000


@pytest.fixture
def registry(store_settings: StoreSettings) -> ApiKeyRegistry:
    return ApiKeyRegistry(store_settings)


def test_a_store_has_managed_keys_once_one_was_made(registry: ApiKeyRegistry, store_settings: StoreSettings) -> None:
    assert not has_managed_keys(store_settings)
    record, _ = registry.create("alice", Scope.ALL, KeyLimits())
    registry.revoke(record.id)
    assert has_managed_keys(store_settings)


def test_without_the_store_nothing_is_guessed(tmp_path: Path) -> None:
    absent = StoreSettings(redis_url=f"unix://{tmp_path}/absent.sock")
    with pytest.raises(StoreUnavailable, match="cannot be read or written: ConnectionError"):
        has_managed_keys(absent)
    with pytest.raises(StoreUnavailable):
        ApiKeyRegistry(absent).create("alice", Scope.ALL, KeyLimits())


def test_the_store_has_a_keys_digest_and_not_the_key(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    before_ms = registry.now_ms()
    record, key = registry.create("alice", Scope.READ, LIMITS, expires_ms=before_ms + HOUR_MS)

    assert re.fullmatch(f"dk_{record.id}_[A-Za-z0-9_-]{{43}}", key), "43 characters of base64 are 256 bits"
    assert re.fullmatch("[0-9a-f]{12}", record.id)
    assert record.sha256 == hashlib.sha256(key.encode()).hexdigest()
    assert (record.owner, record.scope, record.limits) == ("alice", Scope.READ, LIMITS)
    assert before_ms <= record.created_ms <= registry.now_ms()
    with valkey.client as client:
        assert set(client.keys()) == {keys.API_KEYS.encode(), keys.API_KEYS_VERSION.encode()}
        (stored,) = client.hvals(keys.API_KEYS)
    assert key[-43:].encode() not in stored
    assert registry.records() == [(record, None)]


def test_every_key_is_another(registry: ApiKeyRegistry) -> None:
    made = [registry.create("alice", Scope.ALL, KeyLimits()) for _ in range(3)]
    assert len({key for _, key in made}) == len({record.id for record, _ in made}) == 3
    assert [record for record, _ in registry.records()] == sorted(
        (record for record, _ in made), key=lambda it: (it.created_ms, it.id)
    )


def test_each_change_makes_a_new_version(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    """Also on a server that has lost everything and begins anew."""
    versions = set[bytes | None]()
    with valkey.client as client:
        for _ in range(2):
            record, _ = registry.create("alice", Scope.ALL, KeyLimits())
            versions.add(client.get(keys.API_KEYS_VERSION))
            registry.limit("alice", {"items_per_day": 5})
            versions.add(client.get(keys.API_KEYS_VERSION))
            registry.revoke(record.id)
            versions.add(client.get(keys.API_KEYS_VERSION))
            client.flushdb()
    assert len(versions - {None}) == 6


def test_a_revoked_key_keeps_its_record_and_its_time(registry: ApiKeyRegistry) -> None:
    record, _ = registry.create("alice", Scope.ALL, LIMITS)
    revoked = registry.revoke(record.id)
    assert revoked.revoked_ms is not None
    assert revoked == record.model_copy(update={"revoked_ms": revoked.revoked_ms})
    assert registry.revoke(record.id) == revoked
    assert registry.records() == [(revoked, None)]


def test_an_unknown_key_cannot_be_revoked(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    with pytest.raises(ApiKeyError, match="no key 'other'"):
        registry.revoke("other")
    with valkey.client as client:
        assert client.keys() == []


def test_limits_are_those_of_all_valid_keys_of_an_owner(registry: ApiKeyRegistry) -> None:
    first, _ = registry.create("alice", Scope.ALL, LIMITS)
    second, _ = registry.create("alice", Scope.READ, KeyLimits(pending_items=7))
    gone, _ = registry.create("alice", Scope.ALL, LIMITS)
    gone = registry.revoke(gone.id)
    other, _ = registry.create("bob", Scope.ALL, LIMITS)

    changed = registry.limit("alice", {"requests_per_second": 3, "items_per_day": None})

    assert [record.id for record in changed] == [first.id, second.id]
    now = {record.id: record.limits for record, _ in registry.records()}
    assert now == {
        first.id: KeyLimits(requests_per_second=3),
        second.id: KeyLimits(requests_per_second=3, pending_items=7),
        gone.id: LIMITS,
        other.id: LIMITS,
    }
    with pytest.raises(ApiKeyError, match="'carol' has no valid key"):
        registry.limit("carol", {"items_per_day": 1})


def test_a_key_that_would_have_expired_is_not_made(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    with pytest.raises(ApiKeyError, match="expired already"):
        registry.create("alice", Scope.ALL, LIMITS, expires_ms=registry.now_ms())
    with valkey.client as client:
        assert client.keys() == []


def test_the_last_use_is_read_with_the_records(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    used, _ = registry.create("alice", Scope.ALL, KeyLimits())
    unused, _ = registry.create("bob", Scope.ALL, KeyLimits())
    with valkey.client as client:
        client.hset(keys.API_KEYS_USED, used.id, 29_000_000)
    assert {record.id: at for record, at in registry.records()} == {used.id: 29_000_000 * 60_000, unused.id: None}


def test_the_number_of_records_is_bounded(
    registry: ApiKeyRegistry, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key that ended first makes way; valid keys do not."""
    monkeypatch.setattr(api_key_registry, "API_KEYS_MAX", 3)
    ids = [registry.create("alice", Scope.ALL, KeyLimits())[0].id for _ in range(3)]
    with pytest.raises(ApiKeyError, match="there are 3 valid keys"):
        registry.create("alice", Scope.ALL, KeyLimits())
    registry.revoke(ids[1])
    with valkey.client as client:
        client.hset(keys.API_KEYS_USED, ids[1], 1)
        new, _ = registry.create("alice", Scope.ALL, KeyLimits())
        assert {record.id for record, _ in registry.records()} == {ids[0], ids[2], new.id}
        assert client.hkeys(keys.API_KEYS_USED) == []


def test_a_change_that_another_one_crosses_is_made_again(
    registry: ApiKeyRegistry, store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither of two changes of one record is lost."""
    record, _ = registry.create("alice", Scope.ALL, KeyLimits())
    crossing = iter([{"items_per_day": 5}])
    unpack_records = api_key_registry.unpack_records

    def unpack_and_cross(stored: Any) -> Any:
        for limits in crossing:
            ApiKeyRegistry(store_settings).limit("alice", limits)
        return unpack_records(stored)

    monkeypatch.setattr(api_key_registry, "unpack_records", unpack_and_cross)
    registry.limit("alice", {"pending_items": 7})

    ((found, _),) = registry.records()
    assert found.limits == KeyLimits(items_per_day=5, pending_items=7)
    assert found.id == record.id


def test_a_change_that_is_always_crossed_gives_up(
    registry: ApiKeyRegistry, valkey: Valkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    with valkey.client as client:

        def unpack_and_cross(_: Any) -> list[Any]:
            client.hset(keys.API_KEYS, "other", time.monotonic_ns())
            return []

        monkeypatch.setattr(api_key_registry, "unpack_records", unpack_and_cross)
        with pytest.raises(ApiKeyError, match="gave up after 10 tries"):
            registry.create("alice", Scope.ALL, KeyLimits())
        assert client.hlen(keys.API_KEYS) == 1


def test_a_record_of_another_release_is_left_alone(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    with valkey.client as client:
        client.hset(keys.API_KEYS, "other", '{"id": "other", "owner": "alice", "only_on": "mondays"}')
        mine, _ = registry.create("alice", Scope.ALL, KeyLimits())
        registry.limit("alice", {"items_per_day": 5})
        assert client.hget(keys.API_KEYS, "other") == b'{"id": "other", "owner": "alice", "only_on": "mondays"}'
    assert [record.id for record, _ in registry.records()] == [mine.id]


def test_a_server_that_refuses_writes_changes_nothing(registry: ApiKeyRegistry, valkey: Valkey) -> None:
    with valkey.client as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreUnavailable, match=r"OutOfMemoryError|OOM"):
            registry.create("alice", Scope.ALL, KeyLimits())
        assert client.keys() == []


def test_the_password_is_not_in_the_error() -> None:
    with pytest.raises(StoreUnavailable) as refused:
        has_managed_keys(StoreSettings(redis_url="redis://127.0.0.1:1/0", redis_password="a-secret-password"))
    assert "a-secret-password" not in str(refused.value)
