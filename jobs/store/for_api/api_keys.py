"""Managed API keys as Redis holds them: one record a key, without the key itself."""

import logging
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from jobs.store import keys

log = logging.getLogger(__name__)

PREFIX = "dk"  # a key is PREFIX_<id>_<secret>


Limit = Annotated[int, Field(ge=1)]


class Scope(StrEnum):
    ALL = "all"
    READ = "read"
    """GET and HEAD only."""


class KeyLimits(BaseModel):
    """What requests with a key may do; None means no limit."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    requests_per_second: Limit | None = None
    items_per_day: Limit | None = None
    """Of a UTC day."""
    pending_items: Limit | None = None
    """Of the key's owner, at a submit with this key."""


class ApiKeyRecord(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    """Of the whole key, in hexadecimal digits."""
    owner: str
    scope: Scope
    limits: KeyLimits
    created_ms: int
    expires_ms: int | None = None
    revoked_ms: int | None = None

    @property
    def end_ms(self) -> int | None:
        """When the key stops being valid, in Redis time; None for never."""
        ends = [end for end in (self.expires_ms, self.revoked_ms) if end is not None]
        return min(ends) if ends else None

    def has_ended(self, now_ms: float) -> bool:
        return self.end_ms is not None and now_ms >= self.end_ms


def items_of_day_key(key_id: str, now_ms: float) -> str:
    """The counter of the items that a key has submitted on the day of `now_ms`."""
    return f"{keys.ITEMS_OF_DAY}{key_id}:{int(now_ms // keys.DAY_MS)}"


def unpack_record(key_id: bytes, packed: bytes) -> ApiKeyRecord | None:
    """The record; None, with a log line, if it is in a form that this release does not know, as of another one.

    Such a key is not valid here: its record may restrict it in a way that this release would not enforce.
    """
    with suppress(ValueError):
        record = ApiKeyRecord.model_validate_json(packed)
        if record.id.encode() == key_id:
            return record
    log.warning("the record of API key %s cannot be read: the key is not valid here", key_id.decode(errors="replace"))
    return None


def unpack_records(stored: Mapping[bytes, bytes]) -> list[ApiKeyRecord]:
    """The records that this release can read, in the order of their creation."""
    found = [unpack_record(key_id, packed) for key_id, packed in stored.items()]
    return sorted((record for record in found if record is not None), key=lambda it: (it.created_ms, it.id))
