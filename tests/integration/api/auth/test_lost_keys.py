"""Managed keys that the store has lost, cannot read, or does not answer for."""

import asyncio
import json
import logging
from pathlib import Path

import pytest

from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.api_key_registry import ApiKeyRegistry
from jobs.store.for_api.api_keys import KeyLimits, Scope
from tests.integration.api.auth.conftest import MakeKey, answers, id_of
from tests.integration.api.conftest import StartApi, running_api
from tests.support.processes import Valkey
from tests.support.waiting import eventually


async def test_a_record_of_another_release_is_no_valid_key_and_closes_the_server(
    start_api: StartApi, make_key: MakeKey, valkey: Valkey
) -> None:
    """It may restrict the key in a way that this release does not know."""
    key = make_key()
    with valkey.client as client:
        (packed,) = client.hvals(keys.API_KEYS)
        client.hset(keys.API_KEYS, id_of(key), packed.replace(b"{", b'{"only_on":"mondays",', 1))
    api = await start_api()
    for headers in ({}, key):
        assert (await api.get("/v1/jobs", headers=headers)).status_code == 401


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        (b"0123456789ab", {"sha256": "md5:00"}),
        (b"0123456789ab", {"limits": {"requests_per_second": 0}}),
        (b"ba9876543210", {}),
        (b"\xff", {}),
    ],
)
async def test_a_damaged_record_does_not_keep_other_keys_alive(
    start_api: StartApi,
    make_key: MakeKey,
    registry: ApiKeyRegistry,
    valkey: Valkey,
    field: bytes,
    changes: dict[str, object],
) -> None:
    key, api = make_key(), await start_api()
    record, text = registry.create("bob", Scope.ALL, KeyLimits())
    damaged = record.model_dump(mode="json") | {"id": "0123456789ab"} | changes
    with valkey.client as client:
        client.hdel(keys.API_KEYS, record.id)
        client.hset(keys.API_KEYS, field, json.dumps(damaged))
    await answers(api, 200, make_key())
    registry.revoke(id_of(key))
    await answers(api, 401, key)
    await answers(api, 200, make_key())
    assert (await api.get("/v1/jobs", headers={"Authorization": f"Bearer {text}"})).status_code == 401


async def test_a_server_that_others_can_reach_is_closed_also_if_the_store_has_lost_its_keys(
    start_api: StartApi,
) -> None:
    """A process of several that starts anew does not check again whether there is a key."""
    for reachable in ({"bind": "192.0.2.1"}, {"domain": "a.example"}):
        assert (await (await start_api(**reachable)).get("/v1/jobs")).status_code == 401
        opened = await start_api(**reachable, open_to_everybody=True)
        assert (await opened.get("/v1/jobs")).status_code == 200


async def test_keys_that_a_store_has_lost_end_also_if_a_new_one_is_made_at_once(
    start_api: StartApi, make_key: MakeKey, valkey: Valkey
) -> None:
    lost = make_key()
    api = await start_api()
    with valkey.client as client:
        client.delete(keys.API_KEYS, keys.API_KEYS_VERSION)
    new = make_key()
    await answers(api, 200, new)
    assert (await api.get("/v1/jobs", headers=lost)).status_code == 401


async def test_a_server_that_takes_no_writes_lets_keys_in(
    start_api: StartApi, make_key: MakeKey, valkey: Valkey, caplog: pytest.LogCaptureFixture
) -> None:
    """Only the last use is not written."""
    key, later = make_key(), make_key()
    api = await start_api()
    with valkey.client as client:
        client.config_set("maxmemory", 1)
        with caplog.at_level(logging.WARNING):
            assert (await api.get("/v1/jobs", headers=key)).status_code == 200
            await eventually(lambda: "API keys: waiting for the job store: QueueFull" in caplog.text, what="a refusal")
        assert (await api.get("/v1/jobs", headers=later)).status_code == 200
        client.config_set("maxmemory", 0)
        await eventually(lambda: client.hlen(keys.API_KEYS_USED) == 2, what="the last use of both")


async def test_without_the_store_the_last_known_keys_stay(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Valkey(tmp_path / "vk") as server:
        registry = ApiKeyRegistry(StoreSettings(redis_url=server.url))
        _, text = registry.create("alice", Scope.ALL, KeyLimits())
        key = {"Authorization": f"Bearer {text}"}
        async with running_api(server) as api:
            server.kill()
            with caplog.at_level(logging.WARNING):
                await eventually(lambda: "API keys: waiting for the job store" in caplog.text, what="an outage")
            assert (await api.get("/v1/jobs", headers=key)).status_code == 503
            assert (await api.get("/v1/jobs")).status_code == 401
            server.start()
            await answers(api, 200, key)


async def test_a_store_that_comes_later_does_not_open_the_server_for_a_moment(tmp_path: Path) -> None:
    """The API starts without its store, which has keys."""
    with Valkey(tmp_path / "vk") as server:
        registry = ApiKeyRegistry(StoreSettings(redis_url=server.url))
        _, text = registry.create("alice", Scope.ALL, KeyLimits())
        server.kill()
        async with running_api(server) as api:
            assert (await api.get("/v1/jobs")).json()["code"] == "store_unavailable"
            starting = asyncio.create_task(asyncio.to_thread(server.start))
            seen = set[int]()
            async with asyncio.timeout(30):
                while 200 not in seen:
                    without = await api.get("/v1/jobs")
                    assert without.status_code in (401, 503)
                    seen.add((await api.get("/v1/jobs", headers={"Authorization": f"Bearer {text}"})).status_code)
            await starting
            assert seen == {200, 503}
            assert (await api.get("/v1/jobs")).status_code == 401
