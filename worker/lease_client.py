"""The store's lease calls as one process makes them, with what to do if Redis's reply to one is lost."""

import itertools
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

from redis.exceptions import RedisError

from jobs.metrics.process_metrics import STORE_CALL_SECONDS
from jobs.spool.spool import SpoolAway
from jobs.store.for_workers.leases import RETURNED, FinishedChunk, Lease, LeaseStore
from jobs.store.keys import OwnerToken

log = logging.getLogger(__name__)

FINISH_RETRY_SECONDS = 0.1
Renewing = Callable[[str], AbstractContextManager[object]]
"""Of an owner token: renews its lease within the context. See `LeaseRenewer.renewing`."""


class ClaimLimits(NamedTuple):
    """How much one claim may take, and which lane it looks at first; see `LeaseStore.claim`."""

    items_max: int
    unshared_items: int
    bulk_items_max: int
    bytes_max: int
    turn: int


class LeaseClient:
    def __init__(
        self, store: LeaseStore, worker_id: str, *, lease_seconds: float, renewing: Renewing = nullcontext
    ) -> None:
        """`renewing` renews a lease while its uploads are read, which may take longer than the lease lasts."""
        self._store = store
        self._worker_id = worker_id
        self._lease_seconds = lease_seconds
        self._renewing = renewing
        self._sequence = itertools.count()

    def claim(self, model: str, task_id: str, limits: ClaimLimits) -> Lease:
        """Claim ready chunks of the model.

        Raises:
            RedisError, SpoolAway: the claim failed, its reply was lost, or the uploads cannot be read; a lease that it
                may have created is released.
        """
        token = self._token(task_id)
        try:
            with self._renewing(token), _timed("claim"):
                return self._store.claim(model, token, **limits._asdict())
        except (RedisError, SpoolAway):
            self.release(token)
            raise

    def finish(self, token: str, finished: Sequence[FinishedChunk], *, ring_for: str = "") -> None:
        """Write results, also across a short outage of Redis: a repeated call after a lost reply changes nothing.

        `ring_for` names the model whose doorbell is rung if work is left.

        Raises:
            RedisError: the outage lasted longer than a lease.
        """
        give_up_at = time.monotonic() + self._lease_seconds
        while True:
            try:
                with _timed("finish"):
                    self._store.finish(token, finished, ring_for=ring_for)
                return
            except RedisError:
                if time.monotonic() >= give_up_at:
                    raise
                time.sleep(FINISH_RETRY_SECONDS)

    def finish_and_claim(
        self, token: str, finished: Sequence[FinishedChunk], model: str, task_id: str, limits: ClaimLimits
    ) -> Lease:
        """`finish`, then `claim`, in one round trip. If its reply is lost, finish again, and return an empty lease.

        Raises:
            RedisError: the outage lasted longer than a lease.
            SpoolAway: the uploads of the next lease cannot be read; it is released.
        """
        next_token = self._token(task_id)
        try:
            with self._renewing(next_token), _timed("finish_and_claim"):
                return self._store.finish_and_claim(token, finished, model, next_token, **limits._asdict())
        except RedisError:
            self.finish(token, finished)
            self.release(next_token)
            return Lease(next_token)
        except SpoolAway:
            self.release(next_token)
            raise

    def release(self, token: str, reason: str = RETURNED) -> None:
        """Make a lease's chunks ready again at once; if Redis is away, that happens when the lease lapses."""
        try:
            self._store.release(token, reason)
        except RedisError:
            log.warning("cannot release a lease; it lapses in %s s", self._lease_seconds)

    def _token(self, task_id: str) -> str:
        sequence, lease_ms = next(self._sequence), int(self._lease_seconds * 1000)
        return OwnerToken(self._worker_id, task_id, os.getpid(), sequence, lease_ms).pack()


class _timed:  # noqa: N801 - reads as a function
    """Measures a call of the store, also one that fails. A class: a generator's context costs three times as much."""

    def __init__(self, call: str) -> None:
        self._call = call

    def __enter__(self) -> None:
        self._began = time.monotonic()

    def __exit__(self, *_: object) -> None:
        STORE_CALL_SECONDS.measured(time.monotonic() - self._began, self._call)
