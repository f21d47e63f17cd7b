from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from jobs.store.for_workers.leases import LeaseStore
from tests.support.claim_loops import BeforeDecode, MakeClaimLoop
from tests.support.pictures import samples
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import WORKER_ID
from worker.classify.claim_loop import ClaimLoop
from worker.inference.classifier import Classifier
from worker.inference.images.batch import ImageBatch
from worker.lease_client import LeaseClient
from worker.lease_renewer import LeaseRenewer
from worker.process_state import ProcessState
from worker.settings import WorkerSettings
from worker.store import open_lease_store


@pytest.fixture
def make_claim_loop(valkey: Valkey, classifier: Classifier, process_state: ProcessState) -> Iterator[MakeClaimLoop]:
    """Claim loops that do not linger; `store` is the client that they use."""
    with ExitStack() as opened:

        def make(*, store: LeaseStore | None = None, first_turn: int | None = None, **changed: float) -> ClaimLoop:
            checked = WorkerSettings(redis_url=valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES, linger_seconds=0)
            settings = checked.model_copy(update=changed)  # unchecked: tests use values that no setting may have
            if store is None:
                store = opened.enter_context(closing(open_lease_store(settings)))
            leases = LeaseClient(store, WORKER_ID, lease_seconds=settings.lease_seconds)
            renewer = LeaseRenewer(settings, [], WORKER_ID, process_state)  # not started: no lease lapses here
            return ClaimLoop(settings, classifier, store, leases, renewer, first_turn=first_turn)

        yield make


@pytest.fixture
def loop_store(valkey: Valkey) -> Iterator[LeaseStore]:
    """A store client to give to a claim loop, in which a test can replace a call."""
    settings = WorkerSettings(redis_url=valkey.url, redis_maxmemory_bytes=MAXMEMORY_BYTES)
    with closing(open_lease_store(settings)) as store:
        yield store


@pytest.fixture
def before_decode(monkeypatch: pytest.MonkeyPatch) -> BeforeDecode:
    """Has a function called with every upload before it is decoded."""

    def install(hook: Callable[[bytes], None]) -> None:
        add = ImageBatch.add

        def call_first(batch: ImageBatch, upload: memoryview, *args: Any) -> None:
            hook(bytes(upload))
            add(batch, upload, *args)

        monkeypatch.setattr(ImageBatch, "add", call_first)

    return install


@pytest.fixture
def bag() -> bytes:
    """Another picture than the shirt."""
    return samples()["0018-bag.png"]
