"""A worker's child process: loads the model once, then serves slices of work, one Celery task each."""

import itertools
import logging
import os
import threading
import time
from typing import TypedDict

from redis.exceptions import RedisError

from jobs.errors import ItemCode
from jobs.leases import RETURNED, FinishedChunk, Lease
from worker.classifier import Classifier, OutOfTime
from worker.lease_work import LeaseWork
from worker.outage import Outage
from worker.settings import WorkerSettings
from worker.store import open_store

log = logging.getLogger(__name__)

IDLE_POLL_SECONDS = 0.0005


class _Wanted(TypedDict):
    items_max: int
    bytes_max: int
    turn: int


class Child:
    def __init__(self, settings: WorkerSettings, classifier: Classifier, boot: str) -> None:
        self._settings = settings
        self._model = classifier.card.name
        self._boot = boot
        self._store = open_store(settings)
        self._work = LeaseWork(classifier, crash_tries_max=settings.crash_tries_max, losses_max=settings.losses_max)
        self._turn = itertools.count(os.getpid())  # children out of step look at different lanes first
        self._sequence = itertools.count()
        self._keeper = _Keeper(settings, self._model, f"{classifier.card.ref}", f"{boot}|{os.getpid()}")

    def start(self) -> None:
        """Show this process as ready, and keep its leases."""
        self._keeper.start()

    def serve(self, task_id: str) -> None:
        """Claim and classify for one slice of time, then leave the rest to the next doorbell."""
        ends = time.monotonic() + self._settings.slice_seconds
        lease = self._claim(task_id, ends)
        while lease.chunks:
            with self._keeper.keeping(lease.token):
                finished = self._run(lease)
            if time.monotonic() >= ends:
                self._finish(lease.token, finished, ring_for=self._model)
                return
            lease = self._finish_and_claim(lease.token, finished, task_id)
            if not lease.chunks:
                lease = self._claim(task_id, ends)

    def _claim(self, task_id: str, ends: float) -> Lease:
        """The next lease, or an empty one after a short wait for work that has not come."""
        until = min(ends, time.monotonic() + self._settings.linger_seconds)
        while True:
            token = self._token(task_id)
            try:
                lease = self._store.claim(self._model, token, **self._wanted())
            except RedisError:
                self._give_back(token, RETURNED)  # it may have run though its answer was lost
                raise
            now = time.monotonic()
            if lease.chunks or now >= ends or (now >= until and not lease.more):
                return lease
            if not lease.more:
                time.sleep(IDLE_POLL_SECONDS)

    def _wanted(self) -> _Wanted:
        return {
            "items_max": self._settings.batch_items,
            "bytes_max": self._settings.batch_bytes_max,
            "turn": next(self._turn),
        }

    def _run(self, lease: Lease) -> list[FinishedChunk]:
        until = time.monotonic() + self._settings.task_time_limit_seconds / 2
        try:
            return self._work.run(lease, lambda item, progress: self._note(lease.token, item, progress), until)
        except OutOfTime:
            # Before the time limit kills this process: image by image, what is done stays done, so that only an
            # image that is too slow by itself is ever charged.
            if not lease.suspect:
                self._note(lease.token, -1)
            self._give_back(lease.token, RETURNED)
            return []
        except RedisError:
            self._give_back(lease.token, RETURNED)
            raise
        except Exception:
            # A fault of ours on these very bytes would come back for ever: charge it like a crash.
            log.exception("classifying failed; the chunks are tried again one by one")
            self._give_back(lease.token, ItemCode.WORKER_CRASHED)
            raise

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
            return self._store.finish_and_claim(token, finished, self._model, next_token, **self._wanted())
        except RedisError:
            self._finish(token, finished)
            self._give_back(next_token, RETURNED)
            return Lease(next_token)

    def _give_back(self, token: str, why: str) -> None:
        try:
            self._store.lapse(token, why)
        except RedisError:
            log.warning("a lease could not be given back; it lapses in %s s", self._settings.lease_seconds)

    def _token(self, task_id: str) -> str:
        return f"{self._boot}|{task_id}|{os.getpid()}|{next(self._sequence)}"


class _Keeper(threading.Thread):
    """Renews the lease that its process holds, and shows that the process is ready."""

    def __init__(self, settings: WorkerSettings, model: str, ref: str, process: str) -> None:
        super().__init__(name="lease keeper", daemon=True)
        self._settings = settings
        self._presence = (model, ref, process)
        self._store = open_store(settings)
        self._held: tuple[str, float] | None = None

    def keeping(self, token: str) -> "_Kept":
        return _Kept(self, token)

    def hold(self, token: str | None) -> None:
        self._held = None if token is None else (token, time.monotonic())

    def run(self) -> None:
        every = self._settings.renew_seconds
        outage = Outage(f"lease keeper of {os.getpid()}")
        while True:
            try:
                self._store.show_presence(*self._presence, seconds=every * 3 + 1, token=self._renewable())
                outage.worked()
            except RedisError as error:
                outage.failed(error)
            except Exception:  # whatever it is, the next round must come
                log.exception("cannot renew")
            time.sleep(every)

    def _renewable(self) -> str:
        """The token of the lease to renew, or '' for none. A task past its time limit is about to be killed."""
        held = self._held
        if held is None or time.monotonic() - held[1] >= self._settings.task_time_limit_seconds:
            return ""
        return held[0]


class _Kept:
    def __init__(self, keeper: _Keeper, token: str) -> None:
        self._keeper = keeper
        self._token = token

    def __enter__(self) -> None:
        self._keeper.hold(self._token)

    def __exit__(self, *exc: object) -> None:
        self._keeper.hold(None)
