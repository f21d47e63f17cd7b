"""Whether every key in Redis expires, or belongs to a job that still exists."""

from collections.abc import Collection

import redis

from jobs.store import keys

# One key of each for a stack, a model or an owner; their size is bounded by the number of jobs, leases or workers.
_FIXED = {
    keys.LEASES,
    keys.SUSPECT_ITEM,
    keys.OWNERS,
    keys.OLDEST_ENDED,
    keys.ENDED,
    keys.OPEN_DEADLINES,
    keys.WEBHOOKS_DUE,
    keys.TRASH,
    keys.STATS,
    keys.DOORBELL_COUNTER,
    keys.MODEL_CARDS,
    keys.PACES,
    keys.SIGNING_KEY,
    keys.STORE_ID,
}
_OF_MODELS = (keys.ROTATION, keys.DOORBELL_TEMPLATE, keys.HEARTBEATS, keys.SUSPECTS, keys.QUEUE, keys.READY, keys.WAKE)


def unreachable(client: "redis.Redis[bytes]", *, owners: Collection[str]) -> list[bytes]:
    """Keys without a time to live that belong to no job, and references to jobs that do not exist."""
    jobs = {key.removeprefix(keys.JOB.encode()) for key in client.keys(f"{keys.JOB}*")}
    listings = {keys.OWNER_JOBS + owner for owner in owners}
    ended = {keys.ENDED_OF_OWNER + owner for owner in owners}
    owned = {job_id for listing in listings for job_id in client.zrange(listing, 0, -1)}
    leases = set(client.zrange(keys.LEASES, 0, -1))
    lost = [b"owned " + job_id for job_id in owned ^ jobs]
    for key in client.scan_iter(count=1000):
        name = key.decode("latin1")
        if client.ttl(key) >= 0 or name in _FIXED | listings | ended or name.startswith(_OF_MODELS):
            continue
        kind, rest = name[:2], key[2:]
        reachable = (
            (kind == keys.JOB and rest in owned)
            or (kind == keys.UPLOAD and rest[:16] in jobs)
            or (kind == keys.IDEMPOTENCY_KEY and client.get(key) in jobs)
            or (kind == keys.LEASED_CHUNKS and rest in leases)
        )
        if not reachable:
            lost.append(key)
    return lost
