"""What Redis must allow the user of a service. At start a script asks the server itself."""

import re
from typing import Any, NamedTuple

from redis import Redis

from jobs.errors import SettingsError
from jobs.store import keys
from jobs.store.scripts import load_scripts

_NAMED_MAX = 6
_CALLED = re.compile(r"redis\.p?call\('([A-Z]+)'")
_SAMPLE = "x"  # behind the prefix of a key
_KEY = f"{keys.JOB}{_SAMPLE}"  # of the calls by which commands are checked, in place of each argument
_WITHOUT_KEY = {"PUBLISH", "TIME"}
_OTHERS_OF_ALL = ("INFO", "TIME", "PING", "PUBLISH CHANNEL x")

# A user without EVAL may call it by its digest. `acl_check_cmd` is of Redis 7.0, as the first line of each script is.
_DENIED = b"""#!lua flags=no-writes
local denied = {}
for _, line in ipairs(ARGV) do
  local command = {}
  for word in string.gmatch(line, '%S+') do command[#command + 1] = word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(command))
  if not known or not allowed then denied[#denied + 1] = line end
end
return denied
"""

_KEYS = (
    *(keys.QUEUE, keys.JOB, keys.UPLOAD, keys.READY, keys.ROTATION, keys.SUSPECTS, keys.LEASES, keys.LEASED_CHUNKS),
    *(keys.SUSPECT_ITEM, keys.OWNERS, keys.ENDED_OF_OWNER, keys.OLDEST_ENDED, keys.ENDED, keys.OWNER_JOBS),
    *(keys.OPEN_DEADLINES, keys.IDEMPOTENCY_KEY, keys.WEBHOOKS_DUE, keys.TRASH, keys.STATS, keys.DOORBELL_TEMPLATE),
    *(keys.WAKE, keys.DOORBELL_COUNTER, keys.HEARTBEATS, keys.LOAD_ERRORS, keys.PACES, keys.MODEL_CARDS, keys.STORE_ID),
)
_KEYS_OF_THE_API = (
    *(keys.SIGNING_KEY, keys.API_KEYS, keys.API_KEYS_VERSION, keys.API_KEYS_USED, keys.ITEMS_OF_DAY, keys.WRITE_PROBE),
)


class Rights(NamedTuple):
    keys: tuple[str, ...]
    """Names of keys, or beginnings of names, that are read and written."""
    keyed: tuple[str, ...]
    """Commands with a key that are called directly; those of the scripts are found in their source."""
    others: tuple[str, ...]
    """Calls without a key."""
    scripts: tuple[str, ...]
    is_worker: bool


_FIGURES = ("HKEYS", "HMGET", "HSCAN", "LLEN", "LRANGE", "ZCOUNT", "ZRANGEBYSCORE")  # of METRICS_PORT
_READS = ("EXISTS", "GET", "HGET", "HSET", "MGET", "SET", "ZRANGE", *_FIGURES)
API = Rights(
    keys=_KEYS + _KEYS_OF_THE_API,
    keyed=(*_READS, "HGETALL", "HSETNX", "HSTRLEN", "UNLINK", "ZSCORE"),
    others=("SUBSCRIBE CHANNEL",),
    scripts=("enqueue", "part", "seal", "cancel", "delete", "sweep"),
    is_worker=False,
)
WORKER = Rights(
    keys=_KEYS,
    keyed=(*_READS, "BLPOP", "BRPOP", "ZADD", "ZREM", "ZREMRANGEBYSCORE", "ZREVRANGEBYSCORE"),
    others=("MULTI", "EXEC"),  # redis-py and Celery
    scripts=("claim", "renew", "finish", "release", "sweep", "deliver", "webhook", "register"),
    is_worker=True,
)


def check_rights(redis: Redis, rights: Rights, *, database: int) -> None:
    """Check that the server allows this user all that the service will do.

    Raises:
        SettingsError: it does not; one line names commands and keys.
        NoPermissionError: not even scripts.
    """
    sources = b"".join(script.source for name, script in load_scripts(database).items() if name in rights.scripts)
    keyed = sorted({*rights.keyed, *_CALLED.findall(sources.decode())} - _WITHOUT_KEY)
    commands = {f"{name}{f' {_KEY}' * 4}": name for name in keyed}
    channel = keys.ended_channel(database)
    others = {call.replace("CHANNEL", channel): call.split()[0] for call in (*_OTHERS_OF_ALL, *rights.others)}
    names = {f"SET {key}{_SAMPLE if key.endswith((':', '.')) else ''} 1": f"the key {key}" for key in rights.keys}
    sha1 = redis.script_load(_DENIED)
    found: Any = redis.evalsha(sha1, 0, *commands, *others, *names)
    denied = {line.decode() for line in found}
    missing = [name for call, name in (commands | others).items() if call in denied]
    missing_keys = [name for call, name in names.items() if call in denied]
    if denied >= commands.keys():  # the key of the samples is denied, so that nothing is known of the commands
        missing = missing_keys
    elif "SET" not in missing:
        missing += missing_keys
    if missing:
        more = f" and {len(missing) - _NAMED_MAX} more" if len(missing) > _NAMED_MAX else ""
        raise SettingsError(
            f"REDIS_URL: the server does not allow its user {', '.join(missing[:_NAMED_MAX])}{more}: "
            "deploy/redis/users.conf has the rights that each user needs"
        )
