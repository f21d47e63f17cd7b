"""A child process of a worker with several models, in this process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from jobs.model_packages import check_packages
from jobs.records import JobState
from jobs.store import keys
from tests.support.packages import package
from tests.support.processes import MAXMEMORY_BYTES, Valkey
from tests.support.store import WORKER_ID, Store
from tests.support.waiting import eventually
from worker.classify.process import ClassifyProcess
from worker.process_state import ProcessState
from worker.settings import WorkerSettings


@contextmanager
def classify_process(
    valkey: Valkey, process_state: ProcessState, models_dir: Path, *refs: str
) -> Iterator[ClassifyProcess]:
    cards, _ = check_packages(models_dir, refs)
    process_state.write_served({card.ref: card.sha256 for card in cards})
    settings = WorkerSettings(
        redis_url=valkey.url,
        redis_maxmemory_bytes=MAXMEMORY_BYTES,
        models=",".join(refs),
        models_dir=models_dir,
        linger_seconds=0,
    )
    process = ClassifyProcess(settings, WORKER_ID, process_state)
    process.start()
    try:
        yield process
    finally:
        process.close()


def clients(store: Store) -> set[str]:
    return {client["id"] for client in store.redis.client_list()}


async def test_any_number_of_models_has_one_lease_renewer_and_two_store_clients(
    store: Store, valkey: Valkey, process_state: ProcessState, tmp_path: Path, shirt: bytes
) -> None:
    models = {"first": "first", "second": "second@7", "third": "third"}
    for ref in models.values():
        package(tmp_path, ref)
    jobs = {name: await store.submit(shirt, model=name) for name in models}
    before = clients(store)
    with classify_process(valkey, process_state, tmp_path, *models.values()) as process:
        for name in models:
            process.run_slice("task", name)
            await eventually(
                lambda name=name: store.redis.zcard(keys.HEARTBEATS + name) == 1, what=f"heartbeats of {name}"
            )
        assert [thread.name for thread in threading.enumerate()].count("lease renewer") == 1
        assert len(clients(store) - before) == 2, "one of the main thread, one of the renewer"
    for job_id in jobs.values():
        assert (await store.get(job_id)).state is JobState.COMPLETED


async def test_a_slice_for_a_model_that_is_not_served_claims_nothing(
    store: Store, valkey: Valkey, process_state: ProcessState, tmp_path: Path, shirt: bytes
) -> None:
    package(tmp_path, "first")
    job_id = await store.submit(shirt, model="other")
    with classify_process(valkey, process_state, tmp_path, "first") as process:
        process.run_slice("task", "other")
    assert (await store.get(job_id)).state is JobState.QUEUED
