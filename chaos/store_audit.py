"""Checks of the store: every job that it accepted has ended, and expires without a trace."""

import asyncio
from contextlib import suppress

from redis.exceptions import RedisError

from chaos.fleet import Fleet
from jobs.store import keys
from jobs.store.job_hash import job_key
from tests.support.keyspace import unreachable

OWNER = "public"
POLL_SECONDS = 1
LIVE_STATES = (b"o", b"q", b"r")
MEMORY_SLACK_BYTES = 4 << 20  # grown hash tables, connections


class StoreAudit:
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._newest_score = 0.0
        self.items = dict[bytes, int]()
        """Number of images of every job that the store has accepted, including open jobs."""
        self._live = set[bytes]()
        self.used_bytes = self._used_bytes()

    async def poll(self) -> None:
        """Read the store once a second, until canceled."""
        while True:
            with suppress(RedisError):
                await asyncio.to_thread(self._read)
            await asyncio.sleep(POLL_SECONDS)

    def _read(self) -> None:
        """Read new jobs, and the jobs that had not ended."""
        redis = self._fleet.redis
        new = redis.zrange(keys.OWNED + OWNER, f"({self._newest_score}", "+inf", byscore=True, withscores=True)
        ids = [*self._live, *(job_id for job_id, _ in new)]
        pipeline = redis.pipeline(transaction=False)
        for job_id in ids:
            pipeline.hmget(job_key(job_id), "s", "n")
        for job_id, (state, items) in zip(ids, pipeline.execute(), strict=True):
            self.items[job_id] = int(items) if state else self.items.get(job_id, 0)
            (self._live.add if state in LIVE_STATES else self._live.discard)(job_id)
        if new:
            self._newest_score = new[-1][1]

    def errors_at_end(self, transitions_before: int) -> list[str]:
        """Errors in the store once all jobs should have ended."""
        self._read()
        redis, errors = self._fleet.redis, list[str]()

        def check(name: str, found: object, expected: object) -> None:
            if found != expected:
                errors.append(f"{name}: {found}, not {expected}")

        check("jobs that have not ended", len(self._live), 0)
        check("terminal states", self._fleet.stat("transitions") - transitions_before, sum(self.items.values()))
        check("upload bytes", self._fleet.stat("uploads"), 0)
        check("items that wait", self._fleet.stat(f"pending:{OWNER}"), 0)
        check("leases", redis.zcard(keys.LEASES), 0)
        # Twice: a job may expire between two reads of one search.
        leaked = set(unreachable(redis, owner=OWNER)) & set(unreachable(redis, owner=OWNER))
        check("keys without an owner", leaked, set())
        return errors

    def leftovers(self) -> list[str]:
        """Keys and bytes that are still in the store after every job's time to live."""
        redis, found = self._fleet.redis, list[str]()
        for kind in (keys.JOB, keys.UPLOAD, keys.KEYED, keys.LEASE):
            if left := redis.keys(f"{kind}*"):
                found.append(f"{len(left)} keys {kind}*")
        if records := self._fleet.stat("records"):
            found.append(f"{records} bytes of records")
        if (used := self._used_bytes()) > self.used_bytes + MEMORY_SLACK_BYTES:
            found.append(f"Redis uses {used} bytes, and used {self.used_bytes} at the start")
        return found

    def _used_bytes(self) -> int:
        return int(self._fleet.redis.info("memory")["used_memory"])
