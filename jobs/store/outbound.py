"""The job store as an outbound worker sees it: what `LeaseStore` has, fetched images, webhooks. Blocking."""

import os
from enum import Enum
from typing import NamedTuple

import orjson
from redis.exceptions import OutOfMemoryError

from jobs.records import ChunkRef, Job
from jobs.store import keys
from jobs.store.job_hash import JOB_FIELDS, decode_job, job_key
from jobs.store.leases import LeaseStore
from jobs.webhooks import ATTEMPTS_KEPT, Attempt, attempts_from


class Verdict(Enum):
    """What became of a chunk whose images were fetched."""

    OK = b"ok"
    QUEUE_FULL = b"queue_full"
    UPLOAD_LOST = b"upload_lost"
    LOST = b"lost"
    """Its lease has lapsed, or its job has ended."""


class Due(NamedTuple):
    """A webhook to be called."""

    job: Job
    url: str
    attempts: list[Attempt]


class OutboundStore(LeaseStore):
    # -- fetched images

    def deliver(self, token: str, entry: ChunkRef, images: bytes) -> Verdict:
        """Put packed images in the place of a chunk's URLs, and make the chunk ready for its job's model.

        On `QUEUE_FULL` the lease stays as it was: the call may be repeated.
        """
        try:
            # Asked first: bytes for which there is no room shall not lie beside those that are counted.
            verdict = self._fetched(token, entry, len(images))
            if verdict is not Verdict.OK:
                return verdict
            staged = keys.UPLOAD.encode() + entry.job_id + os.urandom(8)
            self._redis.set(staged, images, px=int(self._settings.upload_ttl_seconds * 1000))
            return self._fetched(token, entry, len(images), staged)
        except OutOfMemoryError:
            return Verdict.QUEUE_FULL

    def _fetched(self, token: str, entry: ChunkRef, size: int, *staged: bytes) -> Verdict:
        budget = self._settings.uploads_budget_bytes
        return Verdict(self._call("deliver", token, entry.pack(), budget, size, *staged))

    # -- webhooks

    def ring_for_webhooks(self) -> None:
        """Ring where one is due, unless a doorbell waits already."""
        self._call("webhook", "ring")

    def take_webhooks(self, limit: int, *, seconds: float) -> list[Due]:
        """Webhooks that are due; nobody else takes these for so long."""
        taken = self._call("webhook", "take", int(seconds * 1000), limit)
        pipeline = self._redis.pipeline(transaction=False)
        for job_id in taken:
            pipeline.hmget(job_key(job_id), *JOB_FIELDS)
            pipeline.hget(job_key(job_id), keys.FIELDS["webhook_attempts"])
        replies = pipeline.execute() if taken else []
        found = list[Due]()
        for job_id, fields, attempts in zip(taken, replies[::2], replies[1::2], strict=True):
            job = decode_job(job_id, fields)
            if job is not None and job.webhook_url is not None:
                found.append(Due(job, job.webhook_url, attempts_from(attempts)))
        return found

    def record_attempt(self, job_id: bytes, attempt: Attempt, *, again_seconds: float | None) -> None:
        """Keep an attempt with its job; the next one is due after so many seconds, or never."""
        again = "" if again_seconds is None else int(again_seconds * 1000)
        self._call("webhook", "record", job_id, orjson.dumps([*attempt]), ATTEMPTS_KEPT, again)

    # -- the doorbell

    def register_bell(self, bell: bytes) -> None:
        """Leave the doorbell that rings for chunks to be fetched."""
        self._call("register", "", "", keys.FETCH, bell)
