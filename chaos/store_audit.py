"""Checks of the store: every job that it accepted has ended, has a client, and expires without a trace."""

import asyncio
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol

import orjson
from redis.exceptions import RedisError

from api.submissions.digests import key_digest
from chaos.clients.load import OWNERS
from chaos.ledger import Doubt, Ledger
from jobs.ids import from_text
from jobs.records import STATE_OF_CODE, JobState
from jobs.store import keys
from jobs.store.job_hash import chunk_field, job_key
from jobs.store.keys import FIELDS
from tests.support.keyspace import unreachable

POLL_SECONDS = 1
LIVE_STATES = [code for code, state in STATE_OF_CODE.items() if not state.ended]
CANCELED = next(code for code, state in STATE_OF_CODE.items() if state is JobState.CANCELED)
MEMORY_SLACK_BYTES = 4 << 20  # grown hash tables, connections
CLOCK_SLACK_SECONDS = 3.0
SUBMIT_SECONDS_MAX = 20.0  # from a job's id to its acceptance: UPLOAD_SECONDS_MAX of chaos/run.py


@dataclass(slots=True)
class Stored:
    """A job as the store has it."""

    owner: str
    items: int
    state: bytes | None
    key: bytes
    """The digest of its Idempotency-Key, or empty."""
    name: str
    """Of its first image, or empty."""
    seen_at: float = field(default_factory=time.monotonic)

    @property
    def live(self) -> bool:
        return self.state in LIVE_STATES


class Uploads(Protocol):
    def names(self) -> list[str]: ...


class AuditedFleet(Protocol):
    """What is read of a stack."""

    redis: Any

    @property
    def uploads(self) -> Uploads: ...

    def stat(self, name: str) -> int: ...

    def pending(self) -> int: ...


class StoreAudit:
    def __init__(self, fleet: AuditedFleet) -> None:
        self._fleet = fleet
        self._newest_score = dict.fromkeys(OWNERS, 0.0)
        self._forgot_at = time.time()
        self._forgotten_tails = list[tuple[float, float]]()
        """Seconds since the epoch, as in the ids of jobs."""
        self._expired, self._expired_items = set[bytes](), 0
        self._reading = asyncio.Lock()
        self.jobs = dict[bytes, Stored]()
        """All jobs that the store has accepted, including open ones."""
        self.transitions = fleet.stat("transitions")
        self.used_bytes = self._used_bytes()

    async def poll(self) -> None:
        """Read the store once a second, until canceled."""
        while True:
            with suppress(RedisError):
                await self.read()
            await asyncio.sleep(POLL_SECONDS)

    def has_read(self, job_id: str) -> bool:
        return from_text(job_id) in self.jobs

    async def read(self) -> None:
        async with self._reading:
            await asyncio.to_thread(self._read)

    def _read(self) -> None:
        """Read new jobs, and the jobs that had not ended."""
        redis, wanted, newest = self._fleet.redis, {i: it.owner for i, it in self.jobs.items() if it.live}, {}
        for owner in OWNERS:
            since = f"({self._newest_score[owner]}"
            new = redis.zrange(keys.OWNER_JOBS + owner, since, "+inf", byscore=True, withscores=True)
            wanted |= {job_id: owner for job_id, _ in new}
            if new:
                newest[owner] = new[-1][1]
        pipeline = redis.pipeline(transaction=False)
        names = [FIELDS["state"], FIELDS["items"], FIELDS["key_digest"], chunk_field("names", 0)]
        for job_id in wanted:
            pipeline.hmget(job_key(job_id), names)
        for (job_id, owner), (state, items, key, packed) in zip(wanted.items(), pipeline.execute(), strict=True):
            if state is None:
                self._gone(job_id)
                continue
            name = (orjson.loads(packed)[0] or "") if packed else ""
            before = self.jobs.get(job_id)
            seen_at = before.seen_at if before else time.monotonic()
            self.jobs[job_id] = Stored(owner, int(items), state, key or (before.key if before else b""), name, seen_at)
        self._newest_score |= newest

    def _gone(self, job_id: bytes) -> None:
        """It was deleted, which only ended jobs are; without an image, as its upload broke off and was canceled."""
        if (job := self.jobs.get(job_id)) is not None:
            job.state = None if job.items else CANCELED

    # -- after a fault that made the store forget

    async def forget_all(self) -> None:
        """The store came back empty."""
        async with self._reading:
            self.jobs.clear()
            self.transitions = self._expired_items = 0
            self._forgot_at = time.time()
            self._newest_score = dict.fromkeys(OWNERS, 0.0)

    @asynccontextmanager
    async def paused(self) -> AsyncIterator[None]:
        """The store is not read during the block."""
        async with self._reading:
            yield

    async def forget_since(self, since: float) -> None:
        """The store came back without what it had acknowledged since then. Call it while paused."""
        redis = self._fleet.redis
        now = time.time()
        self._forgotten_tails.append((now - (time.monotonic() - since) - SUBMIT_SECONDS_MAX, now))
        for job_id, job in list(self.jobs.items()):
            if job.seen_at < since and not job.live:
                continue
            if not await asyncio.to_thread(redis.exists, job_key(job_id)):
                del self.jobs[job_id]
            elif job.seen_at >= since or not job.live:
                job.state = LIVE_STATES[0]  # read it again
        self._newest_score = dict.fromkeys(OWNERS, 0.0)

    async def count_expired(self, ledger: Ledger) -> None:
        """Add the images of jobs that ended and expired between two reads, when a fault moved the clock."""
        await self.read()
        unseen = {it: len(job.expected) for it, job in ledger.jobs.items() if not self._forgot(it)}
        unseen |= {it: 1 for it in ledger.known if not self._forgot(it)}
        for job_id in unseen.keys() - self.jobs.keys() - self._expired:
            self._expired.add(job_id)
            self._expired_items += unseen[job_id]

    def _forgot(self, job_id: bytes) -> bool:
        """Whether a fault made the store forget what it acknowledged when this job was made.

        By the job's id, of an API's clock: a client on a busy machine notes its answer seconds later.
        """
        at = _made_at(job_id)
        return at <= self._forgot_at or any(since <= at <= until for since, until in self._forgotten_tails)

    # -- at the end

    async def errors_at_end(self, ledger: Ledger) -> list[str]:
        """Errors in the store once all jobs should have ended."""
        await self.read()
        redis, errors = self._fleet.redis, list[str]()

        def check(name: str, found: object, expected: object) -> None:
            if found != expected:
                errors.append(f"{name}: {found}, not {expected}")

        check("jobs that have not ended", sum(job.live for job in self.jobs.values()), 0)
        ended = self._fleet.stat("transitions") - self.transitions
        check("terminal states", ended, sum(job.items for job in self.jobs.values()) + self._expired_items)
        unread = [it for it in (*ledger.jobs, *ledger.known) if it not in self.jobs and it not in self._expired]
        if errors and unread:  # jobs that a fault made the store forget are among them
            errors.append(f"{len(unread)} jobs of clients are not among the jobs that were read")
        check("upload bytes", self._fleet.stat("uploads"), 0)
        check("items that wait", self._fleet.pending(), 0)
        check("leases", redis.zcard(keys.LEASES), 0)
        # Twice: a job may expire between two reads of one search.
        leaked = set(unreachable(redis, owners=OWNERS)) & set(unreachable(redis, owners=OWNERS))
        check("keys without an owner", leaked, set())
        return errors + self._doubled_keys() + self._jobs_of_nobody(ledger)

    def _doubled_keys(self) -> list[str]:
        """At most one job of a key is not canceled."""
        by_key = defaultdict[tuple[str, bytes], int](int)
        for job in self.jobs.values():
            if job.key and job.state != CANCELED:
                by_key[job.owner, job.key] += 1
        return [f"{count} jobs of one key of {owner}" for (owner, _), count in by_key.items() if count > 1]

    def _jobs_of_nobody(self, ledger: Ledger) -> list[str]:
        """Jobs that no client knows of, and whose submit no client is in doubt about."""
        doubts = defaultdict[tuple[str, str], list[Doubt]](list)
        for doubt in ledger.doubts:
            doubts[doubt.owner, doubt.token].append(doubt)
        digests = {(owner, key_digest(token)) for owner, token in doubts if token}
        # An upload that broke off was canceled, and its repeat under the same key is another job.
        accepted = {(job.owner, job.key) for job_id, job in self.jobs.items() if job_id in ledger.jobs}
        for of_owner in doubts.values():
            of_owner.sort(key=lambda it: it.ended)  # then each job takes the one that fewest later jobs could take
        found = list[str]()
        for job_id, job in sorted(self.jobs.items()):
            if job.key and job.state == CANCELED and (job.owner, job.key) in accepted:
                continue
            if job_id in ledger.jobs or job_id in ledger.known or (job.owner, job.key) in digests:
                continue
            if (job.owner, job.name.partition("-")[0]) in doubts and job.name:
                continue
            if job.key or job.name or not _claimed(job_id, doubts[job.owner, ""]):
                found.append(f"job {job_id.hex()} of {job.owner} with {job.items} images has no client: {job}")
        return found

    def leftovers(self) -> list[str]:
        """Keys and bytes that are still in the store after every job's time to live."""
        redis, found = self._fleet.redis, list[str]()
        for kind in (keys.JOB, keys.UPLOAD, keys.IDEMPOTENCY_KEY, keys.LEASED_CHUNKS):
            if left := redis.keys(f"{kind}*"):
                found.append(f"{len(left)} keys {kind}*")
        if records := self._fleet.stat("records"):
            found.append(f"{records} bytes of records")
        if spooled := self._fleet.stat("spooled"):
            found.append(f"{spooled} bytes of uploads outside Redis")
        if shares := redis.zrange(keys.OWNERS, 0, -1, withscores=True):
            found.append(f"shares of records: {shares}")
        if files := self._fleet.uploads.names():
            found.append(f"{len(files)} files of uploads, as {files[0]}")
        if (used := self._used_bytes()) > self.used_bytes + MEMORY_SLACK_BYTES:
            found.append(f"Redis uses {used} bytes, and used {self.used_bytes} at the start")
        return found

    def _used_bytes(self) -> int:
        return int(self._fleet.redis.info("memory")["used_memory"])


def _made_at(job_id: bytes) -> float:
    return int.from_bytes(job_id[:6], "big") / 1000


def _claimed(job_id: bytes, doubts: list[Doubt]) -> bool:
    """Whether a submit without key and name, at the time in the job's id, is in doubt; each claims one job."""
    at = _made_at(job_id)
    for doubt in doubts:
        if doubt.began - CLOCK_SLACK_SECONDS <= at <= doubt.ended + CLOCK_SLACK_SECONDS:
            doubts.remove(doubt)
            return True
    return False
