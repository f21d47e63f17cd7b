"""The job store as a worker sees it: claim, renew, finish, lapse. Blocking; one instance a thread."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from redis import Redis
from redis.backoff import NoBackoff
from redis.client import Pipeline
from redis.exceptions import NoScriptError, OutOfMemoryError
from redis.retry import Retry

from jobs.errors import ModelPackageError
from jobs.item_codes import ItemCode
from jobs.model_manifest import ModelCard, card_from_json
from jobs.records import STATE_OF_CODE, ChunkRef, Failure
from jobs.settings import StoreSettings
from jobs.store import keys
from jobs.store.job_hash import job_key, upload_key
from jobs.store.redis_url import address_of
from jobs.store.scripts import Script, load_scripts
from jobs.store.sweep import sweep_args

RETURNED = "returned"
WORKER_LOST = ItemCode.WORKER_LOST
_WAIT_SECONDS_MIN = 0.002  # Redis before 7.0.8 takes less than a millisecond for no limit


@dataclass(frozen=True, slots=True)
class FailureCounts:
    """How often a chunk's workers were lost, or died at work on it or on one of its items."""

    losses: int = 0
    crashes: int = 0
    items: dict[str, int] = field(default_factory=dict)
    code: str = ItemCode.WORKER_CRASHED

    def verdict(self, item: int, *, crash_tries_max: int, losses_max: int) -> Failure | None:
        """The failure of an item that is not to be tried again."""
        if self.crashes + self.items.get(str(item), 0) >= crash_tries_max:
            return Failure(ItemCode(self.code))
        return Failure(WORKER_LOST) if self.losses >= losses_max else None


@dataclass(slots=True)
class ClaimedChunk:
    """One chunk under a lease."""

    entry: ChunkRef
    top_k: int
    charges: FailureCounts
    progress: bytes
    """Packed outcomes of its first items, from an earlier suspect run; may be empty."""
    upload: bytes | None
    """Packed images, or None where the bytes are gone, as after a cancel."""


@dataclass(slots=True)
class Lease:
    """What a claim brought. Empty where there was nothing to do."""

    token: str
    suspect: bool = False
    bulk: bool = False
    """Whether its chunks are of the bulk lane; False for a suspect of either."""
    more: bool = False
    """Whether work may be left."""
    chunks: list[ClaimedChunk] = field(default_factory=list)


class FinishedChunk(NamedTuple):
    entry: ChunkRef
    succeeded: int
    outcomes: bytes
    kept: bytes = b""
    """Images that may be tried again, as `pack_retained` has them."""


class LeaseStore:
    def __init__(self, settings: StoreSettings, *, lease_seconds: float, timeout_seconds: float) -> None:
        self._settings = settings
        self._lease_ms = int(lease_seconds * 1000)
        # No retries inside the client: a repeated write could run twice, and each caller here knows what a
        # lost answer means to it.
        self._redis: Any = Redis.from_url(  # its types cover both protocols, and fit neither
            settings.redis_url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
            health_check_interval=0,
        )
        self._scripts = load_scripts(address_of(settings.redis_url).database)

    def close(self) -> None:
        self._redis.close()

    # -- a child's side

    def claim(
        self, model: str, token: str, *, items_max: int, bytes_max: int, turn: int, bulk_items_max: int | None = None
    ) -> Lease:
        """Take ready chunks of a model under a new lease.

        `bulk_items_max` stands in for `items_max` where it finds bulk work; with 0 it looks for interactive work alone.
        `turn` says which lane it looks at first, and whether at suspects; see `claim.lua`.
        """
        bulk_items = items_max if bulk_items_max is None else bulk_items_max
        return self._lease(
            token, self._call("claim", *self._claim_args(model, token, items_max, bulk_items, bytes_max, turn))
        )

    def await_work(self, models: Sequence[str], seconds: float) -> str:
        """Return the one for which there may be work now, or the first after so many seconds.

        On an idle server, 0.1 s later.
        """
        woken = self._redis.blpop([keys.WAKE + model for model in models], timeout=max(seconds, _WAIT_SECONDS_MIN))
        return models[0] if woken is None else woken[0].decode().removeprefix(keys.WAKE)

    def is_wanted(self, lease: Lease) -> bool:
        """Whether any of its chunks belongs to a job that goes on."""
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in {claimed.entry.job_id for claimed in lease.chunks}:
            pipeline.hget(job_key(job_id), keys.FIELDS["state"])
        return any(code is not None and not STATE_OF_CODE[code].ended for code in pipeline.execute())

    def finish(self, token: str, finished: Sequence[FinishedChunk], *, ring_for: str = "") -> int:
        """Write results of chunks that the lease still holds. Returns how many items got their terminal state.

        `ring_for` names the model whose doorbell is rung if work is left.
        """
        return int(self._call("finish", *self._finish_args(token, finished, ring_for)))

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
    ) -> Lease:
        """`finish`, then `claim`, in one round trip."""
        claim_args = self._claim_args(model, next_token, items_max, bulk_items_max, bytes_max, turn)
        pipeline = self._redis.pipeline(transaction=False)
        self._add(pipeline, "finish", self._finish_args(token, finished, ""))
        self._add(pipeline, "claim", claim_args)
        done, reply = pipeline.execute(raise_on_error=False)
        if isinstance(done, NoScriptError):  # the server was restarted: its script cache is empty
            self.finish(token, finished)
        elif isinstance(done, Exception):
            raise done
        if isinstance(reply, NoScriptError):
            reply = self._call("claim", *claim_args)
        if isinstance(reply, Exception):
            raise reply
        return self._lease(next_token, reply)

    def renew(self, token: str, *, at_item: int | None = None, progress: bytes = b"") -> bool:
        """Extend a lease. False: it is gone.

        `at_item` notes which item a suspect run starts, and `progress` the packed outcomes of those before it;
        -1 makes suspects of the chunks when the lease ends.
        """
        return bool(self._call("renew", token, self._lease_ms, "" if at_item is None else at_item, progress))

    def heartbeat(self, model: str, ref: str, process: str, seconds: float, *, token: str = "") -> None:
        """Say that this process is ready to serve the model for so long, and extend the lease that it holds.

        One call, and one that a full Redis takes: a worker that seems to be gone could not drain it.
        """
        self._call("renew", token, self._lease_ms, "", b"", model, f"{ref}|{process}", int(seconds * 1000))

    # -- the worker's main process

    def show_load_errors(self, worker_id: str, load_errors: Mapping[str, str], *, seconds: float) -> None:
        """Say for so long why a worker does not serve models, in place of what it has said before.

        A full Redis does not take it: what it would have said is in the log, too, and housekeeping goes on.
        """
        now = int(self._redis.time()[0])
        pipeline = self._redis.pipeline(transaction=False)
        for member in self._redis.zrange(keys.LOAD_ERRORS, 0, -1):
            if member.decode().split("|")[1] == worker_id:
                pipeline.zrem(keys.LOAD_ERRORS, member)
        for model, why in load_errors.items():
            pipeline.zadd(keys.LOAD_ERRORS, {f"{model}|{worker_id}|{why}": now + 1 + seconds})
        pipeline.zremrangebyscore(keys.LOAD_ERRORS, "-inf", now)
        for reply in pipeline.execute(raise_on_error=False):
            if isinstance(reply, Exception) and not isinstance(reply, OutOfMemoryError):
                raise reply

    def release(self, token: str, why: str, *, seen: str = "") -> int:
        """Make a lease's chunks ready again; see `release.lua`. Returns how many."""
        return int(self._call("release", token, seen, why))

    def overdue(self, limit: int) -> dict[str, str]:
        """Leases past their end, or too far from it, as after the clock was set back: owner token to that end."""
        now_ms = self._now_ms()
        pipeline = self._redis.pipeline(transaction=False)
        for least, most in (("-inf", now_ms), (now_ms + 2 * self._lease_ms, "+inf")):
            pipeline.zrangebyscore(keys.LEASES, least, most, start=0, num=limit, withscores=True)
        return {token.decode(): f"{score:.0f}" for found in pipeline.execute() for token, score in found}

    def bells(self, model: str) -> int:
        """How many doorbells of the model wait."""
        return int(self._redis.llen(keys.QUEUE + model))

    def tokens(self, prefix: str) -> list[str]:
        """Owner tokens of live leases that start so."""
        found = (token.decode() for token in self._redis.zrange(keys.LEASES, 0, -1))
        return [token for token in found if token.startswith(prefix)]

    def ready_processes(self, name: str) -> list[tuple[str, str]]:
        """The processes that serve a version of the model, as `heartbeat` wrote them: (name@version, process).

        Those whose presence ends too far from now are of a time before the clock was set back.
        """
        now_ms = self._now_ms()
        found = self._redis.zrangebyscore(keys.HEARTBEATS + name, now_ms, now_ms + 2 * self._lease_ms + 1000)
        members = (member.decode().partition("|") for member in found)
        return [(ref, process) for ref, _, process in members]

    def leave(self, name: str, prefix: str) -> None:
        """Take back the presence of processes whose names start so."""
        for member in self._redis.zrange(keys.HEARTBEATS + name, 0, -1):
            if member.decode().partition("|")[2].startswith(prefix):
                self._redis.zrem(keys.HEARTBEATS + name, member)

    def sweep(self, models: Iterable[str], *, seconds: float) -> None:
        """Drop what is due, for about so long, and ring for what waits."""
        until = time.monotonic() + seconds
        left = list(sweep_args(self._settings, models))
        while left:  # in turns, so that much to do for one holds up no other
            left = [args for args in left if self._call("sweep", *args) and time.monotonic() < until]

    def register(self, card: ModelCard, bells: Mapping[str, bytes]) -> None:
        """Make a model known, and leave the doorbells that submits ring for it, by its name and by its version.

        Raises:
            ModelPackageError: this version is known with other weights or classes.
        """
        args: list[bytes | str] = [card.ref, card.model_dump_json()]
        for model, bell in bells.items():
            args += [model, bell]
        known = card_from_json(self._call("register", *args))
        if (known.sha256, known.classes) != (card.sha256, card.classes):
            raise ModelPackageError(
                f"{card.ref} is known with other weights (sha256 {known.sha256[:12]}…): give these another version"
            )

    # -- plumbing

    def _now_ms(self) -> int:
        seconds, micros = self._redis.time()
        return int(seconds * 1000 + micros // 1000)

    def _claim_args(
        self, model: str, token: str, items_max: int, bulk_items_max: int, bytes_max: int, turn: int
    ) -> list[str | int]:
        return [model, token, self._lease_ms, items_max, bulk_items_max, bytes_max, turn]

    def _finish_args(self, token: str, finished: Sequence[FinishedChunk], ring_for: str) -> list[bytes | str | int]:
        args: list[bytes | str | int] = [token, ring_for, self._settings.retry_budget_bytes]
        for entry, succeeded, outcomes, kept in finished:
            args += [entry.pack(), succeeded, outcomes, kept]
        return args

    def _lease(self, token: str, reply: list[Any]) -> Lease:
        mode, more, *rest = reply
        entries = [ChunkRef.unpack(entry) for entry in rest[::4]]
        uploads = self._redis.mget([upload_key(e.job_id, e.chunk) for e in entries]) if entries else []
        chunks = [
            ClaimedChunk(entry, int(top_k), _charges(charges), progress, upload)
            for entry, top_k, charges, progress, upload in zip(
                entries, rest[1::4], rest[2::4], rest[3::4], uploads, strict=True
            )
        ]
        return Lease(token, mode == b"suspect", mode == b"b", bool(more), chunks)

    def _call(self, name: str, *args: bytes | str | int) -> Any:
        script = self._scripts[name]
        try:
            return self._redis.evalsha(script.sha1, 0, *args)
        except NoScriptError:
            self._redis.script_load(script.source)
            return self._redis.evalsha(script.sha1, 0, *args)

    def _add(self, pipeline: Pipeline, name: str, args: Sequence[bytes | str | int]) -> None:
        script: Script = self._scripts[name]
        pipeline.evalsha(script.sha1, 0, *args)


def _charges(data: bytes) -> FailureCounts:
    return FailureCounts(**orjson.loads(data)) if data else FailureCounts()
