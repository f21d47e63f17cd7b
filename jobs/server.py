"""Whether the server that the settings name is one to trust jobs to."""

import logging

from redis import Redis
from redis.exceptions import AuthenticationError, RedisError

from jobs.errors import SettingsError
from jobs.settings import StoreSettings

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2


def check_server(settings: StoreSettings) -> None:
    """Look at the server once, before anything is started. One that is away is waited for elsewhere.

    Raises:
        SettingsError: it refuses the password, would evict jobs, or has less memory than the budgets divide.
    """
    try:
        with Redis.from_url(settings.redis_url, socket_timeout=_TIMEOUT_SECONDS, retry=None) as redis:
            memory = redis.info("memory")
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
