"""Changes the managed API keys, for the command `darkroom-admin`; blocking, in a process of its own."""

import hashlib
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, WatchError

from jobs.errors import ApiKeyError, StoreUnavailable, one_line
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_api.api_keys import PREFIX, ApiKeyRecord, KeyLimits, Scope, unpack_records
from jobs.store.redis_url import address_of

API_KEYS_MAX = 10_000  # records; the one that ended first makes way for a new one
_TIMEOUT_SECONDS = 2
_TRIES_MAX = 10  # of a change, if others change keys at the same time
_ID_BYTES = 6
_VERSION_BYTES = 8  # random: a counter that starts anew with an empty server comes to a number that processes know
_SECRET_BYTES = 32

_Change = Callable[[list[ApiKeyRecord], int], list[ApiKeyRecord]]
"""From all records and the time (Redis time in ms) to the records to write."""


class ApiKeyRegistry:
    """All methods raise StoreUnavailable if the server does not answer, or refuses."""

    def __init__(self, settings: StoreSettings) -> None:
        self._settings = settings

    def create(
        self, owner: str, scope: Scope, limits: KeyLimits, *, expires_ms: int | None = None
    ) -> tuple[ApiKeyRecord, str]:
        """A new key and its record. The key is stored nowhere: the store has its digest.

        Raises:
            ApiKeyError: it would have expired already; or there are `API_KEYS_MAX` keys, and all of them are valid.
        """
        key_id = secrets.token_hex(_ID_BYTES)
        key = f"{PREFIX}_{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"

        def change(_: list[ApiKeyRecord], now_ms: int) -> list[ApiKeyRecord]:
            if expires_ms is not None and expires_ms <= now_ms:
                raise ApiKeyError("the key would have expired already")
            digest = hashlib.sha256(key.encode()).hexdigest()
            return [
                ApiKeyRecord(
                    id=key_id,
                    sha256=digest,
                    owner=owner,
                    scope=scope,
                    limits=limits,
                    created_ms=now_ms,
                    expires_ms=expires_ms,
                )
            ]

        (record,) = self._change(change)
        return record, key

    def revoke(self, key_id: str) -> ApiKeyRecord:
        """Revoke a key. Its record stays; a key that was revoked before keeps the time.

        Raises:
            ApiKeyError: there is no such key.
        """

        def change(records: list[ApiKeyRecord], now_ms: int) -> list[ApiKeyRecord]:
            for record in records:
                if record.id == key_id:
                    return [record.model_copy(update={"revoked_ms": record.revoked_ms or now_ms})]
            raise ApiKeyError(f"there is no key {key_id!r}")

        (revoked,) = self._change(change)
        return revoked

    def limit(self, owner: str, limits: dict[str, int | None]) -> list[ApiKeyRecord]:
        """Change these limits, by the names of `KeyLimits`, of all the owner's valid keys. Returns their records.

        Raises:
            ApiKeyError: the owner has no valid key.
        """

        def change(records: list[ApiKeyRecord], now_ms: int) -> list[ApiKeyRecord]:
            owned = [record for record in records if record.owner == owner and not record.has_ended(now_ms)]
            if not owned:
                raise ApiKeyError(f"{owner!r} has no valid key")
            return [it.model_copy(update={"limits": it.limits.model_copy(update=limits)}) for it in owned]

        return self._change(change)

    def records(self) -> list[tuple[ApiKeyRecord, int | None]]:
        """All records in the order of their creation, each with the key's last use, Redis time in ms, to the minute."""
        with _connection(self._settings) as redis:
            used, stored = redis.hgetall(keys.API_KEYS_USED), redis.hgetall(keys.API_KEYS)
        records = unpack_records(stored)
        minutes = {record.id: used.get(record.id.encode()) for record in records}
        return [(it, None if (at := minutes[it.id]) is None else int(at) * 60_000) for it in records]

    def now_ms(self) -> int:
        """The server's clock, in ms."""
        with _connection(self._settings) as redis:
            return _now_ms(redis)

    def _change(self, change: _Change) -> list[ApiKeyRecord]:
        """Write the records that `change` returns, all or none, if no other change came between."""
        with _connection(self._settings) as redis:
            for _ in range(_TRIES_MAX):
                try:
                    return _change_once(redis, change)
                except WatchError:
                    continue
        raise ApiKeyError(f"others change keys at the same time: gave up after {_TRIES_MAX} tries")


def has_managed_keys(settings: StoreSettings) -> bool:
    """Whether a managed key was ever made, so that requests need a key. Blocks; for the start of a process.

    Raises:
        StoreUnavailable: the server does not answer within `_TIMEOUT_SECONDS`, or refuses.
    """
    with _connection(settings) as redis:
        return bool(redis.exists(keys.API_KEYS))


def _change_once(redis: Any, change: _Change) -> list[ApiKeyRecord]:
    """Raises WatchError, with nothing written, if the keys were changed meanwhile."""
    now_ms = _now_ms(redis)
    with redis.pipeline() as transaction:
        transaction.watch(keys.API_KEYS)
        stored = transaction.hgetall(keys.API_KEYS)
        records = unpack_records(stored)
        changed = change(records, now_ms)
        new = sum(record.id.encode() not in stored for record in changed)
        transaction.multi()
        if new and len(stored) + new > API_KEYS_MAX:
            ended = sorted((record for record in records if record.has_ended(now_ms)), key=lambda it: it.end_ms or 0)
            if not ended:
                raise ApiKeyError(f"there are {API_KEYS_MAX} valid keys: revoke one that is not needed")
            transaction.hdel(keys.API_KEYS, ended[0].id)
            transaction.hdel(keys.API_KEYS_USED, ended[0].id)
        transaction.hset(keys.API_KEYS, mapping={record.id: record.model_dump_json() for record in changed})
        transaction.set(keys.API_KEYS_VERSION, secrets.token_hex(_VERSION_BYTES))
        transaction.execute()
    return changed


def _now_ms(redis: Any) -> int:
    seconds, micros = redis.time()
    return int(seconds) * 1000 + int(micros) // 1000


@contextmanager
def _connection(settings: StoreSettings) -> Iterator[Any]:  # redis-py's types are in part wrong, in part absent
    """A connection of its own for one call. Raises StoreUnavailable for the server's errors."""
    timeout = _TIMEOUT_SECONDS
    address_of(settings.redis_url)  # raises SettingsError where redis-py would fail
    try:
        with Redis.from_url(
            settings.redis_url, socket_timeout=timeout, socket_connect_timeout=timeout, retry=None
        ) as redis:
            yield redis
    except RedisError as error:
        raise StoreUnavailable(f"the API keys cannot be read or written: {one_line(error)}") from None
