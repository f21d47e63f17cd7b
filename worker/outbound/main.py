"""The entry point of an outbound worker."""

from contextlib import closing
from functools import partial
from pathlib import Path

from celery import Celery

from jobs.service_folder import service_folder
from jobs.store.doorbell import build_doorbell
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.keys import FETCH, OUTBOUND_TASK
from worker.celery_app import run as run_worker
from worker.celery_app import start_up
from worker.lifecycle import ChildService, WorkerKind
from worker.outbound.settings import OutboundSettings
from worker.process_state import ProcessState
from worker.store import open_outbound_store

_FETCHED_PREFIX = "darkroom-fetched-"


def run() -> None:
    """Fetch images and call webhooks until stopped, or until no child can."""
    settings = start_up(OutboundSettings, "outbound")

    templates = dict[str, bytes]()

    def introduce(app: Celery, _: ProcessState) -> None:
        templates[FETCH] = build_doorbell(app, FETCH, OUTBOUND_TASK)
        store.register_doorbells(templates)

    def restore(store: LeaseStore) -> None:
        if store.lacks_doorbells(templates):
            store.register_doorbells(templates)

    with service_folder(_FETCHED_PREFIX) as fetched_folder, closing(open_outbound_store(settings)) as store:
        kind = WorkerKind(
            name="outbound",
            models=(FETCH,),
            children=settings.outbound_children,
            open_child=partial(_open_child, settings, fetched_folder),
            open_child_error="an outbound child cannot start",
            task=OUTBOUND_TASK,
        )
        run_worker(settings, kind, introduce, restore)


def _open_child(
    settings: OutboundSettings, fetched_folder: Path, worker_id: str, process_state: ProcessState
) -> ChildService:
    from worker.outbound.process import OutboundProcess  # aiohttp, which the main process does not need

    return OutboundProcess(settings, worker_id, process_state, fetched_folder)
