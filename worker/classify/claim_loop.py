"""A worker's child process: loads the model once, then serves slices of work, one Celery task each."""

import itertools
import logging
import os
import time
from typing import TypedDict

from redis.exceptions import RedisError

from jobs.item_codes import ItemCode
from jobs.store.leases import RETURNED, FinishedChunk, Lease
from worker.classify.lease_run import LeaseRunner, OutOfTime
from worker.classify.slice_size import SliceSize
from worker.inference.classifier import Classifier
from worker.lease_renewer import LeaseRenewer
from worker.settings import WorkerSettings
from worker.store import open_store

log = logging.getLogger(__name__)

BULK_ITEMS_MAX = 256  # images of one claim of the bulk lane, if they fit BULK_SLICE_SECONDS
CLAIM_BYTES_MAX = 16 << 20  # upload bytes of one claim; a single larger chunk is claimed alone
INTERACTIVE_CLAIMS = 7  # between two slices of a bulk lease: bulk gets every eighth turn, as in claim.lua
CANCELED_LOOK_SECONDS = 0.25  # between two looks whether the jobs of a bulk lease were canceled meanwhile


class _Unwanted(Exception):
    """The jobs of a lease have ended while it was held."""


class _ClaimLimits(TypedDict):
    items_max: int
    bulk_items_max: int
    bytes_max: int
    turn: int


class ClaimLoop:
    def __init__(self, settings: WorkerSettings, classifier: Classifier, worker_id: str) -> None:
        self._settings = settings
        self._ref = self._model = classifier.card.ref
        self._asked = (self._ref, self._ref)
        """What is worked for in this slice of time, as submits name it; and `_model` is which of the two now."""
        self._worker_id = worker_id
        self._store = open_store(settings)
        self._slice_size = SliceSize(settings.bulk_slice_seconds, items_max=BULK_ITEMS_MAX)
        self._work = LeaseRunner(
            classifier, self._slice_size, crash_tries_max=settings.crash_tries_max, losses_max=settings.losses_max
        )
        self._turn = itertools.count(os.getpid())  # children out of step look at different lanes first
        self._sequence = itertools.count()
        self._lease_renewer = LeaseRenewer(settings, classifier.card.name, self._ref, f"{worker_id}|{os.getpid()}")

    def start(self) -> None:
        """Show this process as ready, and keep its leases."""
        self._lease_renewer.start()

    def serve(self, task_id: str, model: str) -> None:
        """Claim and classify for one slice of time, then leave the rest to the next doorbell.

        `model` is whose doorbell rang: the name, as long as this version is the newest, or this version alone.
        """
        self._asked = (model, self._ref)
        self._model = model
        ends = time.monotonic() + self._settings.slice_seconds
        lease = self._wait_for_work(self._claim_once(task_id, self._claim_limits()), task_id, ends)
        while lease.chunks:
            finished = self._run(lease, task_id, time.monotonic() + self._settings.task_time_limit_seconds / 2)
            if time.monotonic() >= ends:
                self._finish(lease.token, finished, ring_for=self._model)
                return
            lease = self._wait_for_work(self._finish_and_claim(lease.token, finished, task_id), task_id, ends)

    def _wait_for_work(self, lease: Lease, task_id: str, ends: float) -> Lease:
        """The lease, where it has work; else the next one, or an empty one after a short wait for work in vain.

        Whoever waits for work of the model's name takes what asks for this very version, too.
        """
        until = min(ends, time.monotonic() + self._settings.linger_seconds)
        while not lease.chunks:
            now = time.monotonic()
            if now >= ends or (now >= until and not lease.more):
                break
            if not lease.more:
                self._model = self._store.await_work(self._asked, until - now)
            lease = self._claim_once(task_id, self._claim_limits())
        return lease

    def _claim_once(self, task_id: str, limits: _ClaimLimits) -> Lease:
        token = self._token(task_id)
        try:
            return self._store.claim(self._model, token, **limits)
        except RedisError:
            self._give_back(token, RETURNED)  # it may have run though its answer was lost
            raise

    def _claim_limits(self, *, bulk: bool = True) -> _ClaimLimits:
        return {
            "items_max": self._settings.batch_items,
            "bulk_items_max": self._slice_size.items() if bulk else 0,
            "bytes_max": CLAIM_BYTES_MAX,
            "turn": next(self._turn) if bulk else 0,
        }

    def _run(self, lease: Lease, task_id: str, until: float) -> list[FinishedChunk]:
        """Classify a lease's images; between the slices of a bulk lease, what waits in the interactive lane."""

        def note(item: int, progress: bytes) -> None:
            self._note(lease.token, item, progress)

        looked = time.monotonic()

        def between() -> None:
            nonlocal looked
            if time.monotonic() - looked >= CANCELED_LOOK_SECONDS:
                looked = time.monotonic()
                if not self._store.is_wanted(lease):
                    raise _Unwanted
            self._serve_interactive(task_id, until)

        # A bulk lease ends early enough for the interactive one that its last slice may have to wait for.
        work_until = (time.monotonic() + until) / 2 if lease.bulk else until
        with self._lease_renewer.renewing(lease.token):
            try:
                return self._work.run(lease, note, between, work_until)
            except OutOfTime as error:
                self._return_for_single_runs(lease, error.progress)
                return []
            except _Unwanted:
                self._give_back(lease.token, RETURNED)
                return []
            except RedisError:
                self._give_back(lease.token, RETURNED)
                raise
            except MemoryError:
                log.exception(
                    "out of memory; the chunks are tried again one by one, by a process that has leaked nothing"
                )
                self._give_back(lease.token, ItemCode.OUT_OF_MEMORY)
                os._exit(1)
            except Exception:
                # A fault of ours on these very bytes would come back for ever: charge it like a crash.
                log.exception("classifying failed; the chunks are tried again one by one")
                self._give_back(lease.token, ItemCode.WORKER_CRASHED)
                raise

    def _return_for_single_runs(self, lease: Lease, progress: bytes) -> None:
        """Give a lease back before the time limit kills this process.

        Image by image then, and what is done stays done, so that only an image that is too slow by itself is charged.
        """
        if lease.bulk and len(lease.chunks) == 1:
            self._store.renew(lease.token, progress=progress)
        elif not lease.suspect:
            self._note(lease.token, -1)
        self._give_back(lease.token, RETURNED)

    def _serve_interactive(self, task_id: str, until: float) -> None:
        for _ in range(INTERACTIVE_CLAIMS):
            lease = self._claim_once(task_id, self._claim_limits(bulk=False))
            if not lease.chunks:
                return
            try:
                finished = self._run(lease, task_id, until)
            except RedisError:
                raise
            except Exception:  # noqa: S112 - it is logged and charged, and the bulk lease has no part in it
                continue
            self._finish(lease.token, finished)

    def _note(self, token: str, item: int, progress: bytes = b"") -> None:
        self._store.renew(token, at_item=item, progress=progress)

    def _finish(self, token: str, finished: list[FinishedChunk], *, ring_for: str = "") -> None:
        """Finish, also across a short outage of Redis: a repeat is refused without harm if the first one ran."""
        give_up = time.monotonic() + self._settings.lease_seconds
        while True:
            try:
                self._store.finish(token, finished, ring_for=ring_for)
                return
            except RedisError:
                if time.monotonic() >= give_up:
                    raise
                time.sleep(0.1)

    def _finish_and_claim(self, token: str, finished: list[FinishedChunk], task_id: str) -> Lease:
        next_token = self._token(task_id)
        try:
            return self._store.finish_and_claim(token, finished, self._model, next_token, **self._claim_limits())
        except RedisError:
            self._finish(token, finished)
            self._give_back(next_token, RETURNED)
            return Lease(next_token)

    def _give_back(self, token: str, why: str) -> None:
        try:
            self._store.release(token, why)
        except RedisError:
            log.warning("a lease could not be given back; it lapses in %s s", self._settings.lease_seconds)

    def _token(self, task_id: str) -> str:
        return f"{self._worker_id}|{task_id}|{os.getpid()}|{next(self._sequence)}"
