"""The store's own account of a run: every job that it accepted, and what is left of them in the end."""

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from chaos.fleet import Fleet
from jobs.store import keys
from jobs.store.job_hash import job_key
from tests.support.keyspace import unreachable

OWNER = "public"
LOOK_SECONDS = 1
LIVE = (b"o", b"q", b"r")
MEMORY_SLACK_BYTES = 4 << 20  # tables that have grown, connections


class Account:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._seen = 0.0
        self.items = dict[bytes, int]()
        """Images of every job that the store has accepted, open ones included."""
        self._live = set[bytes]()
        self.used_bytes = self._used_bytes()

    async def keep(self) -> None:
        while True:
            with suppress(RedisError):
                await asyncio.to_thread(self.look)
            await asyncio.sleep(LOOK_SECONDS)

    def look(self) -> None:
        """Read about jobs that are new, and about those that had not ended."""
        redis = self._fleet.redis
        new = redis.zrange(keys.OWNER_JOBS + OWNER, f"({self._seen}", "+inf", byscore=True, withscores=True)
        ids = [*self._live, *(job_id for job_id, _ in new)]
        pipeline = redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hmget(job_key(job_id), keys.FIELDS["state"], keys.FIELDS["items"])
        for job_id, (state, items) in zip(ids, pipeline.execute(), strict=True):
            self.items[job_id] = int(items) if state else self.items.get(job_id, 0)
            (self._live.add if state in LIVE else self._live.discard)(job_id)
        if new:
            self._seen = new[-1][1]

    def settle(self, transitions_before: int) -> list[str]:
        """What is wrong with the store once all has ended; empty where nothing is."""
        self.look()
        redis, wrong = self._fleet.redis, list[str]()

        def must(name: str, found: object, wanted: object) -> None:
            if found != wanted:
                wrong.append(f"{name}: {found}, not {wanted}")

        must("jobs that have not ended", len(self._live), 0)
        must("terminal states", self._fleet.stat("transitions") - transitions_before, sum(self.items.values()))
        must("upload bytes", self._fleet.stat("uploads"), 0)
        must("items that wait", self._fleet.stat(f"pending:{OWNER}"), 0)
        must("leases", redis.zcard(keys.LEASES), 0)
        # Twice: between two reads of one look a job may have come to the end of its time.
        leaked = set(unreachable(redis, owner=OWNER)) & set(unreachable(redis, owner=OWNER))
        must("keys without an owner", leaked, set())
        return wrong

    def left_over(self) -> list[str]:
        """What is still there after the time to live of all; empty where nothing is."""
        redis, wrong = self._fleet.redis, list[str]()
        for kind in (keys.JOB, keys.UPLOAD, keys.IDEMPOTENCY_KEY, keys.LEASED_CHUNKS):
            if left := redis.keys(f"{kind}*"):
                wrong.append(f"{len(left)} keys {kind}*")
        if records := self._fleet.stat("records"):
            wrong.append(f"{records} bytes of records")
        if (used := self._used_bytes()) > self.used_bytes + MEMORY_SLACK_BYTES:
            wrong.append(f"Redis uses {used} bytes, and used {self.used_bytes} at the start")
        return wrong

    def _used_bytes(self) -> int:
        return int(self._fleet.redis.info("memory")["used_memory"])
