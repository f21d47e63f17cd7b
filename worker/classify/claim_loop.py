"""The claim loop of one model: each Celery task runs it for one slice of time."""

import itertools
import logging
import os
import time

from redis.exceptions import RedisError

from jobs.item_codes import ItemCode
from jobs.store.for_workers.leases import FinishedChunk, Lease, LeaseStore
from worker.classify.lease_run import BetweenSlices, LeaseRunner, OutOfTime
from worker.classify.slice_size import SliceSize
from worker.inference.classifier import Classifier
from worker.lease_client import ClaimLimits, LeaseClient
from worker.lease_renewer import LeaseRenewer
from worker.settings import WorkerSettings

log = logging.getLogger(__name__)

BULK_ITEMS_MAX = 256  # images of one claim of the bulk lane, if they fit BULK_SLICE_SECONDS
CLAIM_BYTES_MAX = 16 << 20  # upload bytes of one claim; a single larger chunk is claimed alone
INTERACTIVE_CLAIMS = 7  # between two slices of a bulk lease: bulk gets every eighth turn, as in claim.lua
CANCELED_CHECK_SECONDS = 0.25  # between two checks whether the jobs of a bulk lease were canceled


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
        self._models = (self._ref, self._ref)
        """Whose work this slice of time takes, as submits name the model; `_model` is the one to claim for next."""
        self._model = self._ref
        self._store = store
        self._leases = leases
        self._lease_renewer = lease_renewer
        self._slice_size = SliceSize(settings.bulk_slice_seconds, items_max=BULK_ITEMS_MAX)
        self._runner = LeaseRunner(
            classifier, self._slice_size, crash_tries_max=settings.crash_tries_max, losses_max=settings.losses_max
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
            items_max=self._settings.batch_items,
            bulk_items_max=self._slice_size.items() if bulk else 0,
            bytes_max=CLAIM_BYTES_MAX,
            turn=next(self._turn) if bulk else 0,
        )

    def _run(self, lease: Lease, task_id: str, until: float) -> list[FinishedChunk]:
        """Classify a lease's images; between the slices of a bulk lease, also what waits in the interactive lane."""

        def on_item_start(item: int, progress: bytes) -> None:
            self._store.renew(lease.token, at_item=item, progress=progress)

        # A bulk lease ends early enough for an interactive lease that its last slice may have to wait for.
        run_until = (time.monotonic() + until) / 2 if lease.bulk else until
        with self._lease_renewer.renewing(lease.token):
            try:
                return self._runner.run(lease, on_item_start, self._between_slices(lease, task_id, until), run_until)
            except OutOfTime as error:
                self._return_for_single_runs(lease, error.progress)
                return []
            except _JobsEnded:
                self._leases.release(lease.token)
                return []
            except RedisError:
                self._leases.release(lease.token)
                raise
            except MemoryError:
                log.exception("out of memory: a new process tries the chunks again, one by one")
                self._leases.release(lease.token, ItemCode.OUT_OF_MEMORY)
                os._exit(1)
            except Exception:
                # A bug that these very bytes trigger would repeat for ever: count it like a crash.
                log.exception("classifying failed: the chunks are tried again one by one")
                self._leases.release(lease.token, ItemCode.WORKER_CRASHED)
                raise

    def _between_slices(self, lease: Lease, task_id: str, until: float) -> BetweenSlices:
        """Runs between the slices of a bulk lease: drops it if its jobs have ended, and does interactive work."""
        checked_at = time.monotonic()

        def between_slices() -> None:
            nonlocal checked_at
            if time.monotonic() - checked_at >= CANCELED_CHECK_SECONDS:
                checked_at = time.monotonic()
                if not self._store.is_wanted(lease):
                    raise _JobsEnded
            self._run_interactive(task_id, until)

        return between_slices

    def _run_interactive(self, task_id: str, until: float) -> None:
        for _ in range(INTERACTIVE_CLAIMS):
            lease = self._leases.claim(self._model, task_id, self._claim_limits(bulk=False))
            if not lease.chunks:
                return
            try:
                finished = self._run(lease, task_id, until)
            except RedisError:
                raise
            except Exception:  # noqa: S112 - logged and counted for that lease; the bulk lease has no part in it
                continue
            self._leases.finish(lease.token, finished)

    def _return_for_single_runs(self, lease: Lease, progress: bytes) -> None:
        """Release a lease before the task's time limit would kill this process.

        Its images then run one by one, from the first that is not done, so that an image fails only if it is too slow
        by itself.
        """
        if lease.bulk and len(lease.chunks) == 1:
            self._store.renew(lease.token, progress=progress)
        elif not lease.suspect:
            self._store.renew(lease.token, at_item=-1)
        self._leases.release(lease.token)
