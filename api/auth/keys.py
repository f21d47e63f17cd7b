"""API keys as requests use them: looked up by digest, from the setting `API_KEYS` and from the store."""

from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256

from api.auth.rate_limit import TokenBucket, limit_field, policy_field
from api.errors import RateLimited, ReadOnlyKey
from jobs.errors import StoreUnavailable, Unauthorized
from jobs.owner_shares import OWNER_OF_ALL
from jobs.store.for_api.api_keys import ApiKeyRecord, KeyLimits, Scope
from jobs.store.for_api.item_quota import ItemQuota

RawHeaders = list[tuple[bytes, bytes]]


class ApiKey:
    """A valid key. All requests with it in this process share this object, also if its record changes."""

    __slots__ = ("_bucket", "_limits", "_now_ms", "_policy", "_processes", "id", "owner", "quota", "read_only")

    def __init__(self, owner: str, *, now_ms: Callable[[], float], key_id: str = "", processes: int = 1) -> None:
        self.id = key_id
        """Empty for a key of `API_KEYS`."""
        self.owner = owner
        self.read_only = False
        self.quota = ItemQuota(key_id)
        self._now_ms = now_ms
        self._processes = processes
        self._limits = KeyLimits()
        self._bucket: TokenBucket | None = None
        self._policy = b""

    def apply(self, record: ApiKeyRecord) -> None:
        """Take scope and limits from the record."""
        self.read_only = record.scope is Scope.READ
        per_second = record.limits.requests_per_second
        if per_second != self._limits.requests_per_second:
            self._bucket = None if per_second is None else TokenBucket(per_second / self._processes)
        self._limits = record.limits
        self.quota.per_day, self.quota.pending_max = record.limits.items_per_day, record.limits.pending_items
        self._policy = policy_field(record.limits)

    @property
    def has_ended(self) -> bool:
        """Whether the key was revoked, or has expired, since the request began."""
        return self.quota.key_ended

    @property
    def shows_limits(self) -> bool:
        return bool(self._policy)

    def check(self, method: str) -> None:
        """Count a request with this key.

        Raises:
            RateLimited, ReadOnlyKey
        """
        if self._bucket is not None and not self._bucket.take():
            raise RateLimited(
                f"This key may send {self._limits.requests_per_second} requests a second.",
                retry_after_seconds=self._bucket.wait_seconds,
            )
        if self.read_only and method != "GET":  # HEAD is a GET here: api/asgi/request_id.py
            raise ReadOnlyKey

    def limit_headers(self) -> RawHeaders:
        """The response's fields about limits, as far as this process knows them now."""
        return [
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", limit_field(self._bucket, self.quota.left(self._now_ms()))),
        ]


class ApiKeys:
    """Looks keys up by their hash: the time that a lookup takes says nothing about how much of a guess was right.

    Managed keys are unknown until `replace_managed` is called for the first time. Until then, and without a key of
    `API_KEYS`, no request is let in: the store may have keys.
    """

    def __init__(
        self, configured: Mapping[str, str], *, closed: bool = False, processes: int, now_ms: Callable[[], float]
    ) -> None:
        """`closed`: requests need a key, even if there is none.

        `processes` share the rates of managed keys; `now_ms` is the store's clock.
        """
        self._now_ms = now_ms
        self.used = set[ApiKey]()
        """Managed keys that requests had since this set was last emptied."""
        self._processes = processes
        self._configured = {_digest(key): ApiKey(owner, now_ms=now_ms) for owner, key in configured.items()}
        self._by_digest = self._configured
        self._managed = dict[str, tuple[ApiKeyRecord, ApiKey]]()
        self._expiring = list[ApiKeyRecord]()  # the next one last
        self._nobody = ApiKey(OWNER_OF_ALL, now_ms=now_ms)
        self._known = False
        self._closed = closed or bool(configured)

    @property
    def closed(self) -> bool:
        """Whether requests need a key: others can reach the API, or there was ever a key."""
        return self._closed

    @property
    def is_open(self) -> bool:
        """Whether requests are let in without a key."""
        return self._known and not self._closed

    def find(self, authorization: str) -> ApiKey:
        """The key in an `Authorization` header. Without any key, all requests have one owner.

        Raises:
            Unauthorized: the server has keys, and the header has none that is valid.
            StoreUnavailable: the managed keys are not known yet.
        """
        if self._closed or not self._known:
            scheme, _, text = authorization.partition(" ")
            key = self._by_digest.get(_digest(text.strip())) if scheme.lower() == "bearer" else None
            if key is None:
                raise Unauthorized if self._known else StoreUnavailable("The API keys cannot be read yet.")
            if key.id:
                self.used.add(key)
            return key
        return self._nobody

    def replace_managed(self, records: Iterable[ApiKeyRecord], *, ever_made: bool) -> list[ApiKey]:
        """Take all managed keys from the store's records. Returns those that are new here.

        A record that has not changed is the same object as before. `ever_made` is also true if no record can be read.
        """
        self._closed |= ever_made  # for good: a store that has lost its keys does not open the server
        former, self._managed = self._managed, {}
        by_digest, new, now_ms = dict(self._configured), list[ApiKey](), self._now_ms()
        for record in records:
            if record.has_ended(now_ms):
                continue
            known, key = former.pop(record.id, None) or (None, self._new_key(record))
            if known is None:
                new.append(key)
            if known is not record:
                key.apply(record)
            self._managed[record.id] = record, key
            by_digest[bytes.fromhex(record.sha256)] = key
        for _, key in former.values():
            key.quota.key_ended = True
        expiring = [record for record, _ in self._managed.values() if record.expires_ms is not None]
        self._expiring = sorted(expiring, key=lambda it: it.expires_ms or 0, reverse=True)
        self._by_digest, self._known = by_digest, True
        return new

    def end_expired(self) -> None:
        """Drop the managed keys whose time is over."""
        now_ms = self._now_ms()
        while self._expiring and self._expiring[-1].has_ended(now_ms):
            record = self._expiring.pop()
            _, key = self._managed.pop(record.id)
            key.quota.key_ended = True
            del self._by_digest[bytes.fromhex(record.sha256)]

    def _new_key(self, record: ApiKeyRecord) -> ApiKey:
        return ApiKey(record.owner, now_ms=self._now_ms, key_id=record.id, processes=self._processes)


def _digest(key: str) -> bytes:
    return sha256(key.encode()).digest()
