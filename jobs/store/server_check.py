"""Checks at start that the Redis server is configured so that it loses no jobs, and allows what its user must do."""

import logging
import ssl
import time

from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError, ResponseError

from jobs.errors import SettingsError
from jobs.settings import StoreSettings
from jobs.spool.open import open_spool
from jobs.spool.spool import Spool, SpoolAway, SpoolNotMarked
from jobs.store.keys import STATS, STORE_ID
from jobs.store.redis_url import address_of
from jobs.store.server_rights import Rights, check_rights

log = logging.getLogger(__name__)

_TIMEOUT_SECONDS = 2
_MARK_SECONDS_MAX, _MARK_POLL_SECONDS = 10, 0.2  # an API that starts beside this worker marks a new place of uploads

COMPACT_HASHES = {"hash-max-listpack-entries": 32, "hash-max-listpack-value": 65_536}
"""With these limits a job of up to 9 chunks is a listpack, whose size the record budget counts.

One value above the limit turns it into a hash table, which takes 600 bytes more; the default limit is 64 bytes. More
entries in a listpack would make every write move all of them.
"""


def check_server(settings: StoreSettings, rights: Rights) -> None:
    """Check server and spool once, before anything is started. One that cannot be reached is only logged.

    Raises:
        SettingsError: it refuses the password, has no certificate that can be verified, does not allow its user what
            the service does, is a cluster, evicts keys, or has less memory than the budgets add up to; or `UPLOADS_URL`
            cannot be used.
    """
    address = address_of(settings.redis_url)  # redis-py would fail at unreadable files each time that it connects
    spool = open_spool(settings)
    try:
        with Redis.from_url(settings.redis_url, socket_timeout=_TIMEOUT_SECONDS, retry=None) as redis:
            _check_kind(redis)
            check_rights(redis, rights, database=address.database)
            store_id, spooled = redis.get(STORE_ID), redis.hget(STATS, "spooled")
            memory = redis.info("memory")
            _advise(redis)
    except AuthenticationError as error:
        raise SettingsError(f"REDIS_URL: {error}") from None
    except NoPermissionError as error:
        raise SettingsError(
            f"REDIS_URL: {error}: deploy/redis/users.conf has the rights that each user needs"
        ) from None
    except RedisError as error:
        if isinstance(error.__cause__ or error.__context__, ssl.SSLCertVerificationError):
            raise SettingsError(f"REDIS_URL: the server's certificate is refused: {error}") from None
        log.warning("cannot reach Redis yet: %s", error)
        return
    _check_spool(spool, store_id, int(spooled or 0), is_worker=rights.is_worker)
    policy, maxmemory = memory["maxmemory_policy"], memory["maxmemory"]
    if policy != "noeviction":
        raise SettingsError(f"REDIS_URL: the server must run with maxmemory-policy noeviction, not {policy}")
    if 0 < maxmemory < settings.redis_maxmemory_bytes:
        raise SettingsError(
            f"REDIS_MAXMEMORY_BYTES is {settings.redis_maxmemory_bytes}, but the server's maxmemory is {maxmemory}: "
            "the budgets would not fit"
        )


def _check_spool(spool: Spool | None, store_id: bytes | None, spooled_bytes: int, *, is_worker: bool) -> None:
    if spool is None:
        if spooled_bytes and is_worker:
            raise SettingsError(
                f"UPLOADS_URL: {spooled_bytes} bytes of uploads wait outside Redis: set UPLOADS_URL as for the API"
            )
        if store_id and is_worker:
            log.warning("UPLOADS_URL: an API keeps, or kept, uploads outside Redis: they are not done here")
        return
    marked_by = time.monotonic() + _MARK_SECONDS_MAX
    while True:
        try:
            spool.check(store_id.decode() if store_id else None, is_new=spooled_bytes == 0, may_mark=not is_worker)
        except SpoolAway as error:
            log.warning("cannot reach UPLOADS_URL yet: %s", error)
        except SpoolNotMarked:
            if time.monotonic() < marked_by:
                time.sleep(_MARK_POLL_SECONDS)
                continue
            raise
        return


def _check_kind(redis: Redis) -> None:
    if redis.info("cluster").get("cluster_enabled"):
        raise SettingsError(
            "REDIS_URL: the server runs in cluster mode, which is not supported: a script uses keys of many slots. "
            "Use a server with cluster-enabled no (docs/SCALE.md)"
        )


def _advise(redis: Redis) -> None:
    if not redis.info("persistence").get("aof_enabled", 1):
        log.warning(
            "REDIS_URL: the server writes no append-only file (appendonly no): a restart of it loses accepted jobs"
        )
    try:
        limits = redis.config_get("hash-max-listpack-*")
    except ResponseError:  # a hosted server may not show its configuration
        return
    for name, wanted in COMPACT_HASHES.items():
        if int(limits.get(name) or wanted) < wanted:
            log.warning(
                "REDIS_URL: %s is below %d: jobs may take twice the memory that the budget counts", name, wanted
            )
