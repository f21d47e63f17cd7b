"""Managed API keys as an API process reads them, again and again."""

from collections.abc import Collection
from typing import NamedTuple

from hiredis import ReplyError

from jobs.store import keys
from jobs.store.for_api.api_keys import ApiKeyRecord, items_of_day_key, unpack_record
from jobs.store.for_api.client import StoreClient
from jobs.store.wire import Command

_MINUTE_MS = 60_000


class StoredKeys(NamedTuple):
    records: Collection[ApiKeyRecord]
    """Those that this release can read. One that has not changed is the same object as before."""
    ever_made: bool
    """Whether there is any record, so that requests need a key."""


class ApiKeyReader:
    """All methods raise StoreUnavailable."""

    def __init__(self, client: StoreClient) -> None:
        self._client = client
        self._version: bytes | None = None
        self._asked_ms = 0.0
        self._stored: dict[bytes, bytes] | None = None
        self._records = dict[bytes, ApiKeyRecord]()
        self._written = set[str]()
        self._written_minute = 0

    async def changed(self) -> StoredKeys | None:
        """All keys if any has changed since the last call, or if the clock was set back; else None.

        Keys may have expired by a clock that was wrong, and are valid again.
        """
        now_ms, asked_ms = self._client.now_ms(), self._asked_ms
        self._asked_ms = now_ms
        (version,) = await self._client.read(("GET", keys.API_KEYS_VERSION))
        if self._stored is not None and version == self._version and now_ms >= asked_ms:
            return None
        (flat,) = await self._client.read(("HGETALL", keys.API_KEYS))
        former, self._stored = self._stored or {}, dict(zip(flat[::2], flat[1::2], strict=True))
        records = dict[bytes, ApiKeyRecord]()
        for key_id, packed in self._stored.items():
            known = self._records.get(key_id) if former.get(key_id) == packed else None
            record = known or unpack_record(key_id, packed)
            if record is not None:
                records[key_id] = record
        self._records, self._version = records, version  # a change since then has another version
        return StoredKeys(records.values(), bool(self._stored))

    async def items_today(self, key_ids: Collection[str]) -> list[int]:
        """How many items of today count against each key."""
        if not key_ids:
            return []
        now_ms = self._client.now_ms()
        (counts,) = await self._client.read(("MGET", *(items_of_day_key(key_id, now_ms) for key_id in key_ids)))
        return [int(count or 0) for count in counts]

    async def write_last_use(self, key_ids: Collection[str]) -> None:
        """Store that these keys are in use, once a minute each."""
        minute = int(self._client.now_ms() // _MINUTE_MS)
        if minute != self._written_minute:
            self._written_minute, self._written = minute, set()
        due = [key_id for key_id in key_ids if key_id not in self._written]
        if due:
            uses: Command = tuple(part for key_id in due for part in (key_id, minute))
            (reply,) = await self._client.run(self._client.commits, ("HSET", keys.API_KEYS_USED, *uses))
            if isinstance(reply, ReplyError):
                raise self._client.refusal(reply)
            self._written.update(due)
