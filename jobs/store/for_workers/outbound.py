"""The job store as an outbound worker sees it: what `LeaseStore` has, fetched images, webhooks. Blocking."""

import os
from enum import Enum
from typing import NamedTuple

import orjson
from redis.exceptions import OutOfMemoryError

from jobs.records import ChunkRef, Job
from jobs.spool.spool import SpoolFull
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

        After `QUEUE_FULL` the chunk is still under the lease: the call may be repeated. Raises OSError if the uploads
        outside Redis cannot be written.
        """
        try:
            # Check the budget first: it does not count staged bytes.
            spooled = self._spool.takes(len(images))
            spool_budget = self._settings.uploads_spool_bytes_max if spooled else ""
            status = self._deliver(token, chunk_ref, len(images), spool_budget)
            if status is not DeliveryStatus.OK:
                return status
            pointer = self._spool.write(chunk_ref, images) if spooled else None
            staged = keys.UPLOAD.encode() + chunk_ref.job_id + os.urandom(8)
            stored = images if pointer is None else pointer.pack()
            try:
                self._redis.set(staged, stored, px=int(self._settings.upload_ttl_seconds * 1000))
                status = self._deliver(token, chunk_ref, len(images), spool_budget, staged)
            except OutOfMemoryError:  # the bytes are in no counter, and this call may be repeated
                self._redis.unlink(staged)
                raise
        except (OutOfMemoryError, SpoolFull):  # the sweep of the spool deletes a file that was written
            return DeliveryStatus.QUEUE_FULL
        if pointer is not None and status is not DeliveryStatus.OK:
            self._spool.delete([pointer.name])
        return status

    def _deliver(
        self, token: str, chunk_ref: ChunkRef, size: int, spool_budget: int | str, *staged: bytes
    ) -> DeliveryStatus:
        budget = self._settings.uploads_budget_bytes
        bulk_fraction = self._settings.uploads_bulk_fraction
        args = [token, chunk_ref.pack(), budget, spool_budget, str(bulk_fraction), size, *staged]
        return DeliveryStatus(self._run_script("deliver", args))

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
