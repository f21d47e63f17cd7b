"""The job store as a worker's child process sees it: claim, renew, finish and release leases. Blocking."""

import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from redis.exceptions import NoScriptError, OutOfMemoryError

from jobs.item_codes import ItemCode
from jobs.records import STATE_OF_CODE, ChunkRef, Failure
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.for_workers.worker_spool import WorkerSpool
from jobs.store.for_workers.worker_store import WorkerStore
from jobs.store.job_hash import upload_key
from jobs.store.keys import OwnerToken, unpack_known

RETURNED = "returned"
WORKER_LOST = ItemCode.WORKER_LOST
PAUSED = keys.SUSPECT_PAUSED
_NO_KEY = keys.UPLOAD  # no upload has this name
_WAIT_SECONDS_MIN = 0.002  # Redis before 7.0.8 takes less than a millisecond for no limit


@dataclass(frozen=True, slots=True)
class FailureCounts:
    """How often leases of a chunk were lost, and how often a process died while it worked on the chunk or an item."""

    lost_leases: int = 0
    crashes: int = 0
    items: dict[str, int] = field(default_factory=dict)
    """Crashes of single items, by their place in the chunk; and behind `ITEM_LOST`, leases lost while one ran alone."""
    code: str = ItemCode.WORKER_CRASHED
    """Of the last crash."""

    @classmethod
    def unpack(cls, data: bytes) -> "FailureCounts":
        """As `release.lua` writes them; `data` may be empty. What this release cannot read counts nothing."""
        try:
            counts = orjson.loads(data)
            items = {str(item): int(count) for item, count in counts.get("items", {}).items()}
            code = counts.get("code", ItemCode.WORKER_CRASHED)
            return cls(int(counts.get("losses", 0)), int(counts.get("crashes", 0)), items, _known_code(code))
        except (ValueError, TypeError, AttributeError):
            return cls()

    def ends_chunk(self, *, crash_tries_max: int, lost_leases_max: int) -> bool:
        """Whether no image of the chunk is to be tried again, whatever its bytes are."""
        return self.crashes >= crash_tries_max or self.lost_leases >= lost_leases_max

    def failure_of(self, item: int, *, crash_tries_max: int, lost_leases_max: int) -> Failure | None:
        """The failure of an item that is not to be tried again, or None."""
        if self.crashes + self.items.get(str(item), 0) >= crash_tries_max:
            return Failure(ItemCode(self.code))
        lost_leases = self.lost_leases + self.items.get(f"{keys.ITEM_LOST}{item}", 0)
        return Failure(WORKER_LOST) if lost_leases >= lost_leases_max else None


def _known_code(code: str) -> ItemCode:
    try:
        return ItemCode(code)
    except ValueError:
        return ItemCode.WORKER_CRASHED


@dataclass(slots=True)
class ClaimedChunk:
    """One chunk under a lease."""

    chunk_ref: ChunkRef
    top_k: int
    failure_counts: FailureCounts
    progress: bytes
    """Packed outcomes of its first items, from an earlier suspect run; may be empty."""
    upload: bytes | None
    """Packed images; None if the bytes are gone, as after a cancel, or if reading them has failed too often."""
    file: str = ""
    """Name of the spool's file that has them, if one has."""


@dataclass(slots=True)
class Lease:
    """The result of a claim. It has no chunks if no work was ready."""

    token: str
    """A packed `OwnerToken`."""
    suspect: bool = False
    bulk: bool = False
    """Whether its chunks are of the bulk lane; False for a suspect of either lane."""
    more: bool = False
    """Whether work may be left."""
    chunks: list[ClaimedChunk] = field(default_factory=list)


class FinishedChunk(NamedTuple):
    chunk_ref: ChunkRef
    succeeded: int
    outcomes: bytes
    retained: bytes = b""
    """Failed images for a retry, see `pack_retained`."""
    file: str = ""
    """As in `ClaimedChunk`: deleted once the chunk is finished."""


class LeaseStore(WorkerStore):
    """Calls that return chunks raise SpoolAway if the uploads outside Redis cannot be read."""

    def __init__(
        self,
        settings: StoreSettings,
        *,
        lease_seconds: float,
        timeout_seconds: float,
        crash_tries_max: int | None = None,
        lost_leases_max: int | None = None,
    ) -> None:
        """The bytes of a chunk that has had so many crashes or lost leases before its first image was at work are not
        read again: reading them may be what fails. None: they are always read.
        """
        super().__init__(settings, lease_seconds=lease_seconds, timeout_seconds=timeout_seconds)
        self._limits = {
            "crash_tries_max": sys.maxsize if crash_tries_max is None else crash_tries_max,
            "lost_leases_max": sys.maxsize if lost_leases_max is None else lost_leases_max,
        }
        self._spool = WorkerSpool(settings)

    def claim(
        self,
        model: str,
        token: str,
        *,
        items_max: int,
        bytes_max: int,
        turn: int,
        bulk_items_max: int | None = None,
        unshared_items: int | None = None,
    ) -> Lease:
        """Take ready chunks of a model under a new lease.

        `bulk_items_max` replaces `items_max` if the claim finds bulk work; 0 allows interactive work alone. `turn`
        chooses which lane is looked at first, and whether suspects are; see `claim.lua`. Of interactive work, more
        than `unshared_items` are taken only up to the share of this process, if others are idle; None: all.
        """
        bulk_items = items_max if bulk_items_max is None else bulk_items_max
        unshared = items_max if unshared_items is None else unshared_items
        args = self._claim_args(model, token, items_max, unshared, bulk_items, bytes_max, turn)
        return self._lease(token, self._run_script("claim", args))

    def await_work(self, models: Sequence[str], seconds: float) -> str:
        """Wait until one of the models may have work, and return it; the first one after so many seconds.

        An idle server notices the end of the wait 0.1 s late.
        """
        woken = self._redis.blpop([keys.WAKE + model for model in models], timeout=max(seconds, _WAIT_SECONDS_MIN))
        return models[0] if woken is None else woken[0].decode().removeprefix(keys.WAKE)

    def is_wanted(self, lease: Lease) -> bool:
        """Whether any of its chunks belongs to a job that has not ended."""
        states = self._read_of_jobs((claimed.chunk_ref.job_id for claimed in lease.chunks), "state")
        return any(code is not None and not STATE_OF_CODE[code].ended for code in states)

    def finish(self, token: str, finished: Sequence[FinishedChunk], *, ring_for: str = "") -> int:
        """Write the results of chunks that are still under the lease. Returns how many items reached a terminal state.

        `ring_for` names the model whose doorbell is rung if work is left.
        """
        ended = int(self._run_script("finish", self._finish_args(token, finished, ring_for)))
        self._delete_files(finished)
        return ended

    def with_kept_images(self, finished: Sequence[FinishedChunk]) -> list[FinishedChunk]:
        """The chunks as `finish` takes them: large failed images that are to be retained are in the spool."""
        return [it._replace(retained=self._spool.keep(it.chunk_ref, it.retained)) for it in finished]

    def finish_and_claim(
        self,
        token: str,
        finished: Sequence[FinishedChunk],
        model: str,
        next_token: str,
        *,
        items_max: int,
        bytes_max: int,
        turn: int,
        bulk_items_max: int,
        unshared_items: int,
    ) -> Lease:
        """`finish`, then `claim`, in one round trip."""
        finish_args = self._finish_args(token, finished, "")
        claim_args = self._claim_args(model, next_token, items_max, unshared_items, bulk_items_max, bytes_max, turn)
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.evalsha(self._scripts["finish"].sha1, 0, *finish_args)
        pipeline.evalsha(self._scripts["claim"].sha1, 0, *claim_args)
        done, reply = pipeline.execute(raise_on_error=False)
        if isinstance(done, NoScriptError):
            self._run_script("finish", finish_args)
        elif isinstance(done, Exception):
            raise done
        self._delete_files(finished)
        if isinstance(reply, NoScriptError):
            reply = self._run_script("claim", claim_args)
        if isinstance(reply, Exception):
            raise reply
        return self._lease(next_token, reply)

    def renew(self, token: str, *, at_item: int | None = None, progress: bytes = b"") -> bool:
        """Extend a lease. Returns False if it is gone.

        `at_item` is the item that a suspect run starts next, and `progress` the packed outcomes of the items before it.
        -1 makes the chunks suspects once the lease is released; `PAUSED` says that the process does other work, so that
        its end is not charged to this lease.
        """
        item = "" if at_item is None else at_item
        return bool(self._run_script("renew", [token, self._lease_ms, item, progress]))

    def release(self, token: str, reason: str, *, seen: str = "") -> int:
        """Make a lease's chunks ready again. Returns how many.

        `reason` is `RETURNED`, `WORKER_LOST`, or the item code of a crash, see `release.lua`. With `seen`, an end from
        `overdue`, a lease that was renewed since stays.
        """
        return int(self._run_script("release", [token, seen, reason]))

    def show_pace(self, ref: str, device: str, batch: int, image_ms: float) -> None:
        """Publish how fast processes compute a version of a model on a device; replaces what was measured before.

        If Redis is out of memory, nothing is published and nothing raised: the log has it, too.
        """
        with suppress(OutOfMemoryError):
            self._redis.hset(keys.PACES, f"{ref}|{device}", orjson.dumps({"batch": batch, "image_ms": image_ms}))

    def overdue(self, limit: int) -> dict[str, str]:
        """Leases past their end: owner token to that end. Also leases that end too late, as after a clock set back."""
        now_ms = self._now_ms()
        pipeline = self._redis.pipeline(transaction=False)
        pipeline.zrangebyscore(keys.LEASES, "-inf", now_ms, start=0, num=limit, withscores=True)
        pipeline.zrevrangebyscore(keys.LEASES, "+inf", f"({now_ms}", start=0, num=limit, withscores=True)
        lapsed, late = pipeline.execute()
        too_late = [(token, end) for token, end in late if end > now_ms + 2 * self._lease_ms_of(token)]
        return {token.decode(): f"{end:.0f}" for token, end in (*lapsed, *too_late)}

    def _lease_ms_of(self, token: bytes) -> int:
        """How long this lease lasts: workers may have other settings. Tokens of earlier releases do not say it."""
        found = unpack_known(OwnerToken, [token])
        return (found[0].lease_ms if found else 0) or self._lease_ms

    def suspects_at_work(self, tokens: Sequence[str]) -> list[str]:
        """Those of the leases whose suspect run has reached an item."""
        reached = self._redis.hmget(keys.SUSPECT_ITEM, tokens) if tokens else []
        return [token for token, item in zip(tokens, reached, strict=True) if item is not None and int(item) >= 0]

    def tokens_of(self, worker_id: str, task_id: str | None = None) -> list[str]:
        """Owner tokens of the live leases of a worker, or of one of its tasks."""
        tokens = unpack_known(OwnerToken, self._redis.zrange(keys.LEASES, 0, -1))
        return [it.pack() for it in tokens if it.worker_id == worker_id and task_id in (None, it.task_id)]

    def _claim_args(
        self, model: str, token: str, items_max: int, unshared: int, bulk_items_max: int, bytes_max: int, turn: int
    ) -> list[str | int]:
        return [model, token, self._lease_ms, items_max, unshared, bulk_items_max, bytes_max, turn]

    def _finish_args(self, token: str, finished: Sequence[FinishedChunk], ring_for: str) -> list[bytes | str | int]:
        budgets = self._settings.retry_budget_bytes, self._settings.spool_retry_budget_bytes
        args: list[bytes | str | int] = [token, ring_for, *budgets]
        for chunk_ref, succeeded, outcomes, retained, _ in finished:
            args += [chunk_ref.pack(), succeeded, outcomes, retained]
        return args

    def _delete_files(self, finished: Sequence[FinishedChunk]) -> None:
        """Delete the files of chunks that are finished; one that was not under the lease may still be needed."""
        spooled = [it for it in finished if it.file]
        if not spooled:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for it in spooled:
            pipeline.exists(upload_key(it.chunk_ref.job_id, it.chunk_ref.chunk))
        done = [it.file for it, exists in zip(spooled, pipeline.execute(), strict=True) if not exists]
        if done:
            self._spool.delete(done)

    def _lease(self, token: str, reply: list[Any]) -> Lease:
        lane, more, *rest = reply
        chunk_refs = [ChunkRef.unpack(packed) for packed in rest[::4]]
        counts = list(map(FailureCounts.unpack, rest[2::4]))
        wanted = [
            _NO_KEY if each.ends_chunk(**self._limits) else upload_key(it.job_id, it.chunk)
            for it, each in zip(chunk_refs, counts, strict=True)
        ]
        stored = self._redis.mget(wanted) if wanted else []
        uploads = self._spool.uploads(stored)
        chunks = [
            ClaimedChunk(chunk_ref, int(top_k), failure_counts, progress, *upload)
            for chunk_ref, top_k, failure_counts, progress, upload in zip(
                chunk_refs, rest[1::4], counts, rest[3::4], uploads, strict=True
            )
        ]
        return Lease(token, lane == b"suspect", lane == b"b", bool(more), chunks)
