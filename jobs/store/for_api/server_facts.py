"""What `python -m api.doctor` reads of the Redis server; blocking, in a process of its own."""

import time
from dataclasses import dataclass
from typing import Any

from redis import Redis
from redis.exceptions import RedisError, ResponseError

from jobs.errors import StoreUnavailable, one_line
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.keys import Heartbeat, LoadError, unpack_known

_TIMEOUT_SECONDS = 5


@dataclass(frozen=True)
class ServerFacts:
    persistence: dict[str, Any]
    memory: dict[str, Any]
    appendfsync: str
    """Empty if the server does not show its configuration."""
    clock_seconds: float
    """How far its clock is ahead of this machine's."""
    served: dict[str, set[str]]
    """Of each model's name, the versions that worker processes serve now, as `name@version`."""
    releases: set[str]
    """Of Darkroom, of which workers run now; "" is one that does not say it."""
    load_errors: list[LoadError]


def read_server_facts(settings: StoreSettings) -> ServerFacts:
    """Raises StoreUnavailable if the server does not answer, or refuses."""
    try:
        with Redis.from_url(settings.redis_url, socket_timeout=_TIMEOUT_SECONDS, retry=None) as redis:
            seconds, microseconds = redis.time()
            clock_seconds = seconds + microseconds / 1e6 - time.time()
            shown = dict[str, set[str]]()
            for name in redis.scan_iter(keys.HEARTBEATS + "*"):
                members = redis.zrangebyscore(name, 1000 * seconds, "+inf")
                shown[name.decode().removeprefix(keys.HEARTBEATS)] = {it.ref for it in unpack_known(Heartbeat, members)}
            releases = {ref.removeprefix(keys.MAIN).removeprefix("@") for ref in shown.get(keys.MAIN, ())}
            served = {name: refs for name, refs in shown.items() if not name.startswith("@")}
            load_errors = [LoadError.unpack(it) for it in redis.zrangebyscore(keys.LOAD_ERRORS, seconds, "+inf")]
            persistence, memory = redis.info("persistence"), redis.info("memory")
            try:
                appendfsync = str(redis.config_get("appendfsync").get("appendfsync", ""))
            except ResponseError:  # a hosted server may not show its configuration
                appendfsync = ""
    except RedisError as error:
        raise StoreUnavailable(one_line(error)) from None
    return ServerFacts(persistence, memory, appendfsync, clock_seconds, served, releases, load_errors)
