"""A token bucket, and the response fields of draft-ietf-httpapi-ratelimit-headers-11."""

import math
from time import monotonic

from jobs.store.for_api.api_keys import KeyLimits

REQUESTS, ITEMS = "requests", "items"  # names of the policies
_SECONDS_A_DAY = 86_400


class TokenBucket:
    """The requests of one key that this process allows: some a second, and one second's worth at once."""

    __slots__ = ("_at", "_capacity", "_per_second", "_tokens")

    def __init__(self, per_second: float) -> None:
        self._per_second = per_second
        self._capacity = max(1.0, per_second)
        self._tokens = self._capacity
        self._at = monotonic()

    def take(self) -> bool:
        """Whether the bucket had a token for one request, which is taken."""
        now = monotonic()
        self._tokens = min(self._capacity, self._tokens + (now - self._at) * self._per_second)
        self._at = now
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True

    @property
    def left(self) -> int:
        """Whole tokens after the last `take`."""
        return int(self._tokens)

    @property
    def wait_seconds(self) -> int:
        """In how many seconds there is a token at the latest; at least 1, the unit of the response fields."""
        return max(1, math.ceil((1 - self._tokens) / self._per_second))


def policy_field(limits: KeyLimits) -> bytes:
    """The value of `RateLimit-Policy`; empty if there is no limit in time.

    Pending items are none of a window of time: they free themselves as the workers go on.
    """
    policies = []
    if limits.requests_per_second is not None:
        policies.append(f'"{REQUESTS}";q={limits.requests_per_second};w=1')
    if limits.items_per_day is not None:
        policies.append(f'"{ITEMS}";q={limits.items_per_day};w={_SECONDS_A_DAY}')
    return ", ".join(policies).encode()


def limit_field(bucket: TokenBucket | None, items: tuple[int, int] | None) -> bytes:
    """The value of `RateLimit`: what is left now, and in how many seconds there will be more."""
    limits = []
    if bucket is not None:
        limits.append(f'"{REQUESTS}";r={bucket.left};t={bucket.wait_seconds}')
    if items is not None:
        limits.append(f'"{ITEMS}";r={items[0]};t={items[1]}')
    return ", ".join(limits).encode()
