import hashlib
from typing import Any

import pytest

from api.auth import rate_limit
from api.auth.keys import ApiKey, ApiKeys
from api.errors import RateLimited, ReadOnlyKey
from jobs.errors import StoreUnavailable, Unauthorized
from jobs.owner_shares import OWNER_OF_ALL
from jobs.store.for_api.api_keys import ApiKeyRecord, KeyLimits, Scope

KEY = "alice-key-0123456789"
MANAGED = "dk_0123456789ab_secret"
NOW_MS = 1_800_000_000_000


class Clock:
    """The store's clock."""

    now_ms = NOW_MS

    def __call__(self) -> float:
        return self.now_ms


def keys_of(configured: dict[str, str], *, clock: Clock | None = None, processes: int = 1) -> ApiKeys:
    return ApiKeys(configured, processes=processes, now_ms=clock or Clock())


def loaded(configured: dict[str, str], *records: ApiKeyRecord, **options: Any) -> ApiKeys:
    api_keys = keys_of(configured, **options)
    api_keys.replace_managed(records, ever_made=bool(records))
    return api_keys


def record_of(key: str = MANAGED, **fields: Any) -> ApiKeyRecord:
    values: dict[str, Any] = {
        "id": key.split("_")[1],
        "sha256": hashlib.sha256(key.encode()).hexdigest(),
        "owner": "bob",
        "scope": Scope.ALL,
        "limits": KeyLimits(),
        "created_ms": NOW_MS - 1000,
    }
    return ApiKeyRecord(**values | fields)


def find(api_keys: ApiKeys, key: str = MANAGED) -> ApiKey:
    return api_keys.find(f"Bearer {key}")


@pytest.mark.parametrize("header", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER   {KEY} "])
def test_a_key_belongs_to_its_owner(header: str) -> None:
    api_keys = loaded({"alice": KEY, "carol": "carol-key-0123456789"}, record_of())
    assert api_keys.find(header).owner == "alice"
    assert api_keys.find(header.replace(KEY, MANAGED)).owner == "bob"


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Bearer wrong", f"Basic {KEY}", KEY, f"Bearer{KEY}", "Bearer ü"]
)
@pytest.mark.parametrize("api_keys", [loaded({"alice": KEY}), loaded({}, record_of())])
def test_anything_else_is_refused(api_keys: ApiKeys, header: str) -> None:
    with pytest.raises(Unauthorized):
        api_keys.find(header)


@pytest.mark.parametrize("header", ["", "Bearer wrong"])
def test_without_any_key_every_request_has_the_same_owner(header: str) -> None:
    api_keys = loaded({})
    assert api_keys.find(header).owner == OWNER_OF_ALL
    assert not api_keys.closed


def test_before_the_stores_keys_are_known_only_configured_keys_are_let_in() -> None:
    api_keys = keys_of({"alice": KEY})
    assert find(api_keys, KEY).owner == "alice"
    for nobody in (api_keys, keys_of({})):
        with pytest.raises(StoreUnavailable):
            nobody.find("")
        with pytest.raises(StoreUnavailable):
            find(nobody)


def test_a_server_whose_managed_keys_are_all_revoked_stays_closed() -> None:
    api_keys = loaded({}, record_of(revoked_ms=NOW_MS))
    assert api_keys.closed
    with pytest.raises(Unauthorized):
        find(api_keys)
    with pytest.raises(Unauthorized):
        api_keys.find("")
    api_keys.replace_managed([], ever_made=False)  # as if the store had lost them
    with pytest.raises(Unauthorized):
        api_keys.find("")


def test_a_configured_key_closes_the_server() -> None:
    assert loaded({"alice": KEY}).closed


def test_of_an_owners_keys_one_is_revoked_without_a_gap() -> None:
    first, second = record_of(), record_of("dk_ba9876543210_other")
    api_keys = loaded({}, first, second)
    former = find(api_keys)
    api_keys.replace_managed([first.model_copy(update={"revoked_ms": NOW_MS}), second], ever_made=True)
    with pytest.raises(Unauthorized):
        find(api_keys)
    assert find(api_keys, "dk_ba9876543210_other").owner == "bob"
    assert former.has_ended, "requests in progress see it"


def test_a_record_that_is_gone_ends_its_key() -> None:
    api_keys = loaded({"alice": KEY}, record_of())
    former = find(api_keys)
    assert not former.has_ended
    api_keys.replace_managed([], ever_made=True)
    assert former.has_ended
    with pytest.raises(Unauthorized):
        find(api_keys)


def test_keys_expire() -> None:
    clock = Clock()
    soon, later = record_of(expires_ms=NOW_MS + 2000), record_of("dk_ba9876543210_other", expires_ms=NOW_MS + 9000)
    api_keys = loaded({}, later, soon, clock=clock)
    key = find(api_keys)
    clock.now_ms += 1999
    api_keys.end_expired()
    assert find(api_keys) is key
    assert not key.has_ended
    clock.now_ms += 1
    api_keys.end_expired()
    assert key.has_ended
    with pytest.raises(Unauthorized):
        find(api_keys)
    assert find(api_keys, "dk_ba9876543210_other").owner == "bob"
    api_keys.replace_managed([later, soon], ever_made=True)
    with pytest.raises(Unauthorized):
        find(api_keys)


def test_a_changed_record_changes_the_key_that_requests_in_progress_have() -> None:
    first = record_of(limits=KeyLimits(items_per_day=5))
    api_keys = keys_of({})
    (key,) = api_keys.replace_managed([first], ever_made=True)
    assert (key.quota.key_id, key.quota.per_day) == (first.id, 5)
    changed = first.model_copy(update={"scope": Scope.READ, "limits": KeyLimits(pending_items=3)})
    assert api_keys.replace_managed([changed], ever_made=True) == [], "it is not new"
    assert find(api_keys) is key
    assert (key.read_only, key.quota.per_day, key.quota.pending_max) == (True, None, 3)


def test_used_managed_keys_are_noted() -> None:
    api_keys = loaded({"alice": KEY}, record_of(), record_of("dk_ba9876543210_other"))
    find(api_keys, KEY)
    assert api_keys.used == set(), "a key of the settings has no record"
    key = find(api_keys)
    find(api_keys)
    assert api_keys.used == {key}


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
def test_a_key_of_scope_read_only_gets(method: str) -> None:
    key = find(loaded({}, record_of(scope=Scope.READ)))
    key.check("GET")
    with pytest.raises(ReadOnlyKey):
        key.check(method)


def test_a_key_without_limits_shows_none() -> None:
    api_keys = loaded({"alice": KEY}, record_of(limits=KeyLimits(pending_items=5)))
    assert not find(api_keys).shows_limits
    assert not find(api_keys, KEY).shows_limits


@pytest.fixture
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "monotonic", lambda: 1000.0)


@pytest.mark.usefixtures("_stopped_clock")
@pytest.mark.parametrize(("processes", "allowed", "wait"), [(1, 10, 1), (2, 5, 1), (3, 3, 1), (20, 1, 2)])
def test_the_processes_share_the_requests_of_a_second(processes: int, allowed: int, wait: int) -> None:
    key = find(loaded({}, record_of(limits=KeyLimits(requests_per_second=10)), processes=processes))
    for _ in range(allowed):
        key.check("GET")
    with pytest.raises(RateLimited, match="10 requests a second") as refused:
        key.check("GET")
    assert refused.value.retry_after_seconds == wait


@pytest.mark.usefixtures("_stopped_clock")
def test_a_new_limit_of_requests_applies_at_once_and_another_limit_leaves_the_bucket() -> None:
    first = record_of(limits=KeyLimits(requests_per_second=1))
    api_keys = loaded({}, first)
    key = find(api_keys)
    key.check("GET")
    same = first.model_copy(update={"limits": KeyLimits(requests_per_second=1, items_per_day=7)})
    api_keys.replace_managed([same], ever_made=True)
    with pytest.raises(RateLimited):
        key.check("GET")
    api_keys.replace_managed([same.model_copy(update={"limits": KeyLimits(requests_per_second=2)})], ever_made=True)
    key.check("GET")
    key.check("GET")
    api_keys.replace_managed([first.model_copy(update={"limits": KeyLimits()})], ever_made=True)
    for _ in range(100):
        key.check("GET")


@pytest.mark.usefixtures("_stopped_clock")
def test_limits_are_shown_as_the_draft_says() -> None:
    clock = Clock()
    clock.now_ms = 20_000 * 86_400_000 + 60_000  # a minute after midnight
    record = record_of(limits=KeyLimits(requests_per_second=10, items_per_day=100_000), created_ms=0)
    key = find(loaded({}, record, clock=clock))
    key.check("GET")
    key.quota.set_used(1, clock.now_ms)
    assert key.shows_limits
    assert key.limit_headers() == [
        (b"ratelimit-policy", b'"requests";q=10;w=1, "items";q=100000;w=86400'),
        (b"ratelimit", b'"requests";r=9;t=1, "items";r=99999;t=86340'),
    ]
