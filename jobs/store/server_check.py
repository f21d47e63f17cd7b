"""Whether the server that the settings name is one to trust jobs to."""

import logging

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError, ResponseError

from jobs.errors import SettingsError
from jobs.settings import StoreSettings

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2

COMPACT_HASHES = {"hash-max-listpack-entries": 32, "hash-max-listpack-value": 65_536}
"""A job of up to 9 chunks is kept in one piece, as the record budget counts it.

One value past the limit makes a hash table of it, which takes 600 bytes more; the default limit is 64 bytes. With more
entries in one piece every write would move them all.
"""


def check_server(settings: StoreSettings) -> None:
    """Look at the server once, before anything is started. One that is away is waited for elsewhere.

    Raises:
        SettingsError: it refuses the password, would evict jobs, or has less memory than the budgets divide.
    """
    try:
        with Redis.from_url(settings.redis_url, socket_timeout=_TIMEOUT_SECONDS, retry=None) as redis:
            memory = redis.info("memory")
            _advise(redis)
    except AuthenticationError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    except RedisError as error:
        log.warning("Redis is not there yet: %s", error)
        return
    policy, maxmemory = memory["maxmemory_policy"], memory["maxmemory"]
    if policy != "noeviction":
        raise SettingsError(f"REDIS_URL: the server must run with maxmemory-policy noeviction, not {policy}")
    if 0 < maxmemory < settings.redis_maxmemory_bytes:
        raise SettingsError(
            f"REDIS_MAXMEMORY_BYTES is {settings.redis_maxmemory_bytes}, but the server's maxmemory is {maxmemory}: "
            "the budgets would not fit"
        )


def _advise(redis: Redis) -> None:
    try:
        limits = redis.config_get("hash-max-listpack-*")
    except ResponseError:  # a hosted server may keep its configuration to itself
        return
    for name, wanted in COMPACT_HASHES.items():
        if int(limits.get(name) or wanted) < wanted:
            log.warning("REDIS_URL: %s is below %d: jobs take up to twice the memory that is counted", name, wanted)
