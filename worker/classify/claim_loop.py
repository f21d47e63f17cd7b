"""The claim loop of one model: each Celery task runs it for one slice of time."""

import itertools
import logging
import os
import time
from contextlib import AbstractContextManager, nullcontext

from redis.exceptions import RedisError

from jobs.ids import submitted_ms, to_text
from jobs.item_codes import ItemCode
from jobs.metrics.process_metrics import CRASHES, QUEUE_SECONDS
from jobs.records import LANE_CODE, Lane
from jobs.spool.spool import SpoolAway
from jobs.store import keys
from jobs.store.for_workers.leases import PAUSED, FinishedChunk, Lease, LeaseStore
from jobs.tracing import Attributes, is_open
from worker.classify.lease_run import BetweenSlices, LeaseRunner, Unfinished
from worker.classify.slice_size import SliceSize
from worker.inference.classifier import Classifier
from worker.lease_client import ClaimLimits, LeaseClient
from worker.lease_renewer import LeaseRenewer
from worker.settings import WorkerSettings
from worker.work_span import work_span

log = logging.getLogger(__name__)

BULK_ITEMS_MAX = 256  # images of one claim of the bulk lane, if they fit BULK_SLICE_SECONDS
CLAIM_BYTES_MAX = 16 << 20  # upload bytes of one claim; a single larger chunk is claimed alone
UNSHARED_SECONDS = 0.01  # so much interactive work is not left to idle children: it is done before they have it
INTERACTIVE_CLAIMS = 7  # between two slices of a bulk lease: bulk gets every eighth turn, as in claim.lua
SUSPECT_TURN_SECONDS = 1  # of one suspect, if others wait
CANCELED_CHECK_SECONDS = 0.25  # between two checks whether the jobs of a bulk lease were canceled


INTERACTIVE_LANE = LANE_CODE[Lane.INTERACTIVE].decode()


class _JobsEnded(Exception):
    """All jobs of a lease have ended while it ran."""


class ClaimLoop:
    def __init__(
        self,
        settings: WorkerSettings,
        classifier: Classifier,
        store: LeaseStore,
        leases: LeaseClient,
        lease_renewer: LeaseRenewer,
        *,
        first_turn: int | None = None,
    ) -> None:
        """`first_turn` is the first claim's `turn`; see `LeaseStore.claim`."""
        self._settings = settings
        self._ref = classifier.card.ref
        self._name = classifier.card.name
        self._models = (self._ref, self._ref)
        """Whose work this slice of time takes, as submits name the model; `_model` is the one to claim for next."""
        self._model = self._ref
        self._store = store
        self._leases = leases
        self._lease_renewer = lease_renewer
        batch_seconds, batch_items = settings.batch_seconds_max, settings.batch_items
        self._claim_size = SliceSize(
            batch_seconds, items_max=batch_items, first_items=batch_items, pace=classifier.pace
        )
        self._slice_size = SliceSize(
            settings.bulk_slice_seconds, items_max=BULK_ITEMS_MAX, pace=classifier.pace, batch_seconds=batch_seconds
        )
        self._runner = LeaseRunner(
            classifier,
            self._claim_size,
            self._slice_size,
            crash_tries_max=settings.crash_tries_max,
            losses_max=settings.losses_max,
        )
        # Processes start at different turns, so that they look at different lanes first.
        self._turn = itertools.count(os.getpid() if first_turn is None else first_turn)

    def run_slice(self, task_id: str, model: str) -> None:
        """Claim and classify for one slice of time; what is left waits for the next doorbell.

        `model` is the model whose doorbell rang: the name if this version is the newest, or this version alone.
        """
        self._models = (model, self._ref)
        self._model = model
        ends = time.monotonic() + self._settings.slice_seconds
        lease = self._wait_for_work(self._leases.claim(model, task_id, self._claim_limits()), task_id, ends)
        while lease.chunks:
            finished = self._run(lease, task_id, time.monotonic() + self._settings.task_time_limit_seconds / 2)
            if time.monotonic() >= ends:
                self._leases.finish(lease.token, finished, ring_for=self._model)
                return
            limits = self._claim_limits()
            next_lease = self._leases.finish_and_claim(lease.token, finished, self._model, task_id, limits)
            lease = self._wait_for_work(next_lease, task_id, ends)

    def _wait_for_work(self, lease: Lease, task_id: str, ends: float) -> Lease:
        """The lease itself if it has chunks; else the next one, or an empty one if no work arrives in a short wait.

        A wait for work of the model's name also takes work that names this very version.
        """
        until = min(ends, time.monotonic() + self._settings.linger_seconds)
        while not lease.chunks:
            now = time.monotonic()
            if now >= ends or (now >= until and not lease.more):
                break
            if not lease.more:
                self._model = self._store.await_work(self._models, until - now)
            lease = self._leases.claim(self._model, task_id, self._claim_limits())
        return lease

    def _claim_limits(self, *, bulk: bool = True) -> ClaimLimits:
        return ClaimLimits(
            items_max=self._claim_size.items(),
            unshared_items=self._claim_size.items_in(UNSHARED_SECONDS),
            bulk_items_max=self._slice_size.items() if bulk else 0,
            bytes_max=CLAIM_BYTES_MAX,
            turn=next(self._turn) if bulk else 0,
        )

    def _run(self, lease: Lease, task_id: str, until: float) -> list[FinishedChunk]:
        """Classify a lease's images; between those of a bulk or suspect lease, also what the interactive lane has."""

        def on_item_start(item: int, progress: bytes) -> None:
            self._store.renew(lease.token, at_item=item, progress=progress)

        # A bulk lease ends early enough for an interactive lease that its last slice may have to wait for.
        run_until = (time.monotonic() + until) / 2 if lease.bulk else until
        if QUEUE_SECONDS.is_open:
            QUEUE_SECONDS.measured(_waited_seconds(lease), self._name)
        with self._lease_renewer.renewing(lease.token), self._span(lease):
            try:
                finished = self._runner.run(
                    lease, on_item_start, self._between_slices(lease, task_id, until), run_until
                )
                return self._store.with_kept_images(finished)
            except Unfinished as left:
                self._return_rest(lease, left)
                return []
            except _JobsEnded:
                self._leases.release(lease.token)
                return []
            except (RedisError, SpoolAway):
                self._leases.release(lease.token)
                raise
            except MemoryError:
                log.exception("out of memory: a new process tries the chunks again, one by one", extra=_jobs_of(lease))
                self._leases.release(lease.token, ItemCode.OUT_OF_MEMORY)
                CRASHES.add(ItemCode.OUT_OF_MEMORY)
                os._exit(1)
            except Exception:
                # A bug that these very bytes trigger would repeat for ever: count it like a crash.
                log.exception("classifying failed: the chunks are tried again one by one", extra=_jobs_of(lease))
                self._leases.release(lease.token, ItemCode.WORKER_CRASHED)
                CRASHES.add(ItemCode.WORKER_CRASHED)
                raise

    def _span(self, lease: Lease) -> AbstractContextManager[None]:
        if not is_open():
            return nullcontext()
        chunk_refs = [claimed.chunk_ref for claimed in lease.chunks]
        attributes: Attributes = {
            "darkroom.model": self._ref,
            "darkroom.items": sum(chunk_ref.items for chunk_ref in chunk_refs),
            "darkroom.bulk": lease.bulk,
            "darkroom.suspect": lease.suspect,
        }
        return work_span(self._store, "classify", (it.job_id for it in chunk_refs), attributes)

    def _between_slices(self, lease: Lease, task_id: str, until: float) -> BetweenSlices:
        """Runs between the slices of a lease and the images of a suspect one. Returns whether others wait for its end.

        Drops the lease if its jobs have ended. Of a bulk lease or a suspect one, does interactive work.
        """
        checked_at = started = time.monotonic()

        def between_slices() -> bool:
            nonlocal checked_at
            if time.monotonic() - checked_at >= CANCELED_CHECK_SECONDS:
                checked_at = time.monotonic()
                if not self._store.is_wanted(lease):
                    raise _JobsEnded
            if not lease.bulk and not lease.suspect:
                return self._store.has_ready(self._models, INTERACTIVE_LANE)
            self._run_interactive(lease, task_id, until)
            turn_is_over = lease.suspect and time.monotonic() - started >= SUSPECT_TURN_SECONDS
            return turn_is_over and self._store.has_ready(self._models, keys.SUSPECT_LANE)

        return between_slices

    def _run_interactive(self, held: Lease, task_id: str, until: float) -> None:
        """Do interactive work while `held` waits; a process that dies of it is no suspect's doing."""
        for _ in range(INTERACTIVE_CLAIMS):
            lease = self._leases.claim(self._model, task_id, self._claim_limits(bulk=False))
            if not lease.chunks:
                return
            if held.suspect:
                self._store.renew(held.token, at_item=PAUSED)
            try:
                finished = self._run(lease, task_id, until)
            except (RedisError, SpoolAway):
                raise
            except Exception:  # noqa: S112 - logged and counted for that lease; the bulk lease has no part in it
                continue
            self._leases.finish(lease.token, finished)

    def _return_rest(self, lease: Lease, left: Unfinished) -> None:
        """Write the results of a lease's finished chunks, and give back the others.

        Those that ran out of time, and those of slow images, then run one by one, image by image, from the first that
        is not done: an image fails only if it is too slow by itself, and others' work is done in between.
        """
        if left.finished:
            self._leases.finish(lease.token, self._store.with_kept_images(left.finished))
        alone = left.run_alone and not lease.suspect
        self._store.renew(lease.token, at_item=-1 if alone else None, progress=left.progress)
        self._leases.release(lease.token)


def _waited_seconds(lease: Lease) -> float:
    """Since the oldest job of the lease was submitted."""
    return max(0.0, time.time() - submitted_ms(min(claimed.chunk_ref.job_id for claimed in lease.chunks)) / 1000)


def _jobs_of(lease: Lease) -> dict[str, list[str]]:
    return {"job_ids": sorted({to_text(claimed.chunk_ref.job_id) for claimed in lease.chunks})}
