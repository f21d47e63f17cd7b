import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobs.errors import SettingsError
from jobs.settings import StoreSettings
from jobs.store.keys import STATS, STORE_ID
from jobs.store.server_check import check_server
from jobs.store.server_rights import API, WORKER, Rights
from tests.support.processes import ROOT, Valkey


@pytest.mark.parametrize(("limit", "lines"), [(64, 1), (65_536, 0)])
def test_a_server_that_stores_jobs_as_hash_tables_is_named_in_one_line(
    valkey: Valkey, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture, limit: int, lines: int
) -> None:
    with valkey.client as client:
        client.config_set("hash-max-listpack-value", limit)
        check_server(store_settings, WORKER)
        client.config_set("hash-max-listpack-value", 65_536)
    assert [record.getMessage().split(" is below")[0] for record in caplog.records] == [
        "REDIS_URL: hash-max-listpack-value"
    ] * lines


def test_a_server_that_hides_its_configuration_is_accepted(
    valkey: Valkey, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey.client as client:
        client.execute_command("ACL", "SETUSER", "default", "-config")
        try:
            check_server(store_settings, WORKER)
        finally:
            client.execute_command("ACL", "SETUSER", "default", "+config")
    assert caplog.records == []


USERS = {
    words[1]: words[2:]
    for line in (ROOT / "deploy/redis/users.conf").read_text().splitlines()
    if line.startswith("user ") and (words := shlex.split(line))
}
RIGHTS = {"api": API, "worker": WORKER}


@pytest.fixture
def user(valkey: Valkey) -> Iterator[StoreSettings]:
    """Settings that connect as the user `limited`, whom a test gives rights."""
    url = f"unix://limited:a-password@{valkey.socket}?db=0"
    try:
        yield StoreSettings(redis_url=url, redis_maxmemory_bytes=1 << 20)
    finally:
        with valkey.client as client:
            client.execute_command("ACL", "DELUSER", "limited")


def allow(valkey: Valkey, name: str, *changes: str) -> None:
    """Give the user `limited` the shipped rights of `name`, then change them."""
    rules = [">a-password" if rule.endswith("_HASH") else rule for rule in USERS[name]]
    with valkey.client as client:
        client.execute_command("ACL", "SETUSER", "limited", "reset", *rules, *changes)


def keys_without(name: str, key: str) -> list[str]:
    """The rules that take one pattern of a key from the user."""
    return ["resetkeys", *(rule for rule in USERS[name] if rule.startswith("~") and rule != f"~{key}")]


@pytest.mark.parametrize("name", RIGHTS)
def test_the_shipped_rights_are_enough(
    valkey: Valkey, user: StoreSettings, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    allow(valkey, name)
    check_server(user, RIGHTS[name])
    assert caplog.records == []


@pytest.mark.parametrize("name", RIGHTS)
def test_every_key_of_the_shipped_rights_is_checked(name: str) -> None:
    """So that a key which is taken from a user, or is new, is named at start."""
    patterns = {rule[1:] for rule in USERS[name] if rule.startswith("~")} - {"unacked*", "_kombu.*"}
    assert patterns == {f"{key}*" if key.endswith((":", ".")) else key for key in RIGHTS[name].keys}


@pytest.mark.parametrize(
    ("name", "change", "missing"),
    [
        ("api", "-get", "GET"),
        ("api", "-subscribe", "SUBSCRIBE"),
        ("api", "-hgetall", "HGETALL"),
        ("api", "-set", "SET"),
        ("worker", "-multi", "MULTI"),
        ("worker", "-exec", "EXEC"),
        ("worker", "-brpop", "BRPOP"),
        ("worker", "-smismember", "SMISMEMBER"),
        ("worker", "-@sortedset", "ZADD, ZCARD, ZCOUNT, ZINCRBY, ZRANDMEMBER, ZRANGE and 6 more"),
        ("worker", "resetchannels", "PUBLISH"),
    ],
)
def test_a_command_that_a_user_lacks_is_named_in_one_line(
    valkey: Valkey, user: StoreSettings, name: str, change: str, missing: str
) -> None:
    allow(valkey, name, change)
    with pytest.raises(SettingsError) as refused:
        check_server(user, RIGHTS[name])
    assert str(refused.value) == (
        f"REDIS_URL: the server does not allow its user {missing}: "
        "deploy/redis/users.conf has the rights that each user needs"
    )


@pytest.mark.parametrize(
    ("name", "key", "missing"),
    [("worker", "q:*", "q:"), ("worker", "leases", "leases"), ("worker", "j:*", "j:"), ("api", "secret", "secret")],
)
def test_a_key_that_a_user_lacks_is_named_in_one_line(
    valkey: Valkey, user: StoreSettings, name: str, key: str, missing: str
) -> None:
    allow(valkey, name, *keys_without(name, key))
    with pytest.raises(SettingsError, match=f"does not allow its user the key {re.escape(missing)}: deploy/redis"):
        check_server(user, RIGHTS[name])


@pytest.mark.parametrize("change", ["-evalsha", "-script", "-info"])
def test_a_user_that_may_not_even_be_checked_is_refused_in_one_line(
    valkey: Valkey, user: StoreSettings, change: str
) -> None:
    allow(valkey, "worker", change)
    with pytest.raises(SettingsError, match=f"REDIS_URL: .*'{change[1:]}.*' command: deploy/redis/users.conf has"):
        check_server(user, WORKER)


def test_a_worker_has_not_the_rights_of_the_api(valkey: Valkey, user: StoreSettings) -> None:
    allow(valkey, "worker")
    with pytest.raises(SettingsError, match="the key secret, the key apikeys, the key apikeys_version, "):
        check_server(user, API)


@pytest.mark.parametrize("rights", RIGHTS.values(), ids=RIGHTS)
def test_a_cluster_is_refused_in_one_line(tmp_path: Path, rights: Rights) -> None:
    server = Valkey(tmp_path / "vk")
    server.arguments += ["--cluster-enabled", "yes"]
    with server:
        settings = StoreSettings(redis_url=server.url, redis_maxmemory_bytes=1 << 20)
        with pytest.raises(SettingsError, match="REDIS_URL: the server runs in cluster mode, which is not supported"):
            check_server(settings, rights)


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_server_that_evicts_is_refused_in_one_line(
    valkey: Valkey, store_settings: StoreSettings, policy: str
) -> None:
    with valkey.client as client:
        client.config_set("maxmemory-policy", policy)
        try:
            with pytest.raises(SettingsError, match=f"must run with maxmemory-policy noeviction, not {policy}$"):
                check_server(store_settings, API)
        finally:
            client.config_set("maxmemory-policy", "noeviction")


def test_a_server_without_an_append_only_file_is_named_in_one_line(
    valkey: Valkey, store_settings: StoreSettings, caplog: pytest.LogCaptureFixture
) -> None:
    with valkey.client as client:
        client.config_set("appendonly", "no")
        try:
            check_server(store_settings, WORKER)
        finally:
            client.config_set("appendonly", "yes")
    (record,) = caplog.records
    assert record.getMessage() == (
        "REDIS_URL: the server writes no append-only file (appendonly no): a restart of it loses accepted jobs"
    )


def test_a_worker_whose_folder_is_not_the_apis_is_refused_in_one_line(
    valkey: Valkey,
    store_settings: StoreSettings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """As on another host, where a folder of the same name is empty."""
    monkeypatch.setattr("jobs.store.server_check._MARK_SECONDS_MAX", 0.5)
    settings = store_settings.model_copy(update={"uploads_url": f"file://{tmp_path}", "uploads_free_bytes_min": 1})
    with valkey.client as client:
        client.set(STORE_ID, "a-store")
        with pytest.raises(SettingsError, match="is not where the API of this Redis keeps uploads"):
            check_server(settings, WORKER)
        check_server(settings, API)  # marks it
        check_server(settings, WORKER)
        assert caplog.records == []
        check_server(store_settings, WORKER)
        (record,) = caplog.records
        assert record.getMessage().startswith("UPLOADS_URL: an API keeps, or kept, uploads outside Redis")
        client.hset(STATS, "spooled", 5)
        with pytest.raises(SettingsError, match="UPLOADS_URL: 5 bytes of uploads wait outside Redis"):
            check_server(store_settings, WORKER)
        check_server(store_settings, API)  # it accepts new ones into Redis, while workers do the others
