from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from typing import Any

import pytest

from jobs.store.for_workers.leases import LeaseStore
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import MODEL, WORKER_ID
from worker.reaper.reaper import Reaper
from worker.settings import WorkerSettings
from worker.store import open_lease_store


@pytest.fixture
def make_reaper(valkey: Valkey) -> Iterator[Callable[..., Reaper]]:
    """Reapers of a worker with the id WORKER_ID that serves version 9 of the model."""
    with ExitStack() as opened:

        def make(
            *,
            store: LeaseStore | None = None,
            give_up: Callable[[str], None] = pytest.fail,
            consume: Callable[[frozenset[str]], None] = lambda _: None,
            load_errors: Callable[[], dict[str, str]] = dict,
            kill_child: Callable[[int], None] = pytest.fail,
            **changed: Any,
        ) -> Reaper:
            values = {"redis_url": valkey.url, "redis_maxmemory_bytes": MAXMEMORY_BYTES}
            settings = WorkerSettings(**values | changed)
            if store is None:
                store = opened.enter_context(closing(open_lease_store(settings)))
            reaper = Reaper(
                settings,
                [f"{MODEL}@9"],
                WORKER_ID,
                give_up,
                load_errors=load_errors,
                consume=consume,
                kill_child=kill_child,
                store=store,
            )
            opened.callback(lambda: reaper.stop() if reaper.is_alive() else None)
            return reaper

        yield make
