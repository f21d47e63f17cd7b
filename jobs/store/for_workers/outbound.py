"""The job store as an outbound worker sees it: what `LeaseStore` has, fetched images, webhooks. Blocking."""

import os
from enum import Enum
from typing import NamedTuple

import orjson
from redis.exceptions import OutOfMemoryError

from jobs.records import ChunkRef, Job
from jobs.store import keys
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.job_hash import JOB_FIELDS, decode_job, job_key
from jobs.webhooks import ATTEMPTS_KEPT, Attempt, attempts_from


class DeliveryStatus(Enum):
    """What happened to a chunk whose images were fetched."""

    OK = b"ok"
    QUEUE_FULL = b"queue_full"
    UPLOAD_LOST = b"upload_lost"
    LOST = b"lost"
    """Its lease was lost, or its job has ended."""


class Due(NamedTuple):
    """A webhook to be called."""

    job: Job
    url: str
    attempts: list[Attempt]


class OutboundStore(LeaseStore):
    # -- fetched images

    def deliver(self, token: str, chunk_ref: ChunkRef, images: bytes) -> DeliveryStatus:
        """Replace a chunk's URLs by the packed images, and make the chunk ready for its job's model.

        After `QUEUE_FULL` the chunk is still under the lease: the call may be repeated.
        """
        try:
            # Check the budget first: it does not count staged bytes.
            status = self._deliver(token, chunk_ref, len(images))
            if status is not DeliveryStatus.OK:
                return status
            staged = keys.UPLOAD.encode() + chunk_ref.job_id + os.urandom(8)
            self._redis.set(staged, images, px=int(self._settings.upload_ttl_seconds * 1000))
            return self._deliver(token, chunk_ref, len(images), staged)
        except OutOfMemoryError:
            return DeliveryStatus.QUEUE_FULL

    def _deliver(self, token: str, chunk_ref: ChunkRef, size: int, *staged: bytes) -> DeliveryStatus:
        budget = self._settings.uploads_budget_bytes
        return DeliveryStatus(self._run_script("deliver", [token, chunk_ref.pack(), budget, size, *staged]))

    # -- webhooks

    def take_webhooks(self, limit: int, *, seconds: float) -> list[Due]:
        """Webhooks that are due. No other process gets them for so long."""
        taken = self._run_script("webhook", ["take", int(seconds * 1000), limit])
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
        """Store an attempt with its job. The next one is due after `again_seconds`, or never if None."""
        again_ms = "" if again_seconds is None else int(again_seconds * 1000)
        self._run_script("webhook", ["record", job_id, orjson.dumps([*attempt]), ATTEMPTS_KEPT, again_ms])

    # -- the doorbell

    def register_doorbell(self, template: bytes) -> None:
        """Store the template of the doorbell that rings for URLs and webhooks."""
        self._run_script("register", ["", "", keys.FETCH, template])
