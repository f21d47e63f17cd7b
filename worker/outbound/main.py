"""The outbound worker's entry: the only place in it that reads the environment."""

from contextlib import closing

from jobs.store.doorbell import build_doorbell
from jobs.store.keys import FETCH, OUTBOUND_TASK
from worker.celery_app import make_celery, start_up
from worker.celery_app import run as run_worker
from worker.lifecycle import ChildService, WorkerKind
from worker.outbound.settings import OutboundSettings
from worker.outbound.store import open_outbound_store

settings = start_up(OutboundSettings, "outbound")


def _open_server(worker_id: str) -> ChildService:
    from worker.outbound.process import OutboundProcess

    return OutboundProcess(settings, worker_id)


role = WorkerKind(
    name="outbound",
    entry="worker.outbound.main",
    models=(FETCH,),
    children=settings.outbound_children,
    open_server=_open_server,
    fault="nothing can be fetched",
    task=OUTBOUND_TASK,
)
app = make_celery(settings, role)


def run() -> None:
    """Work until told to stop, or until no child can."""
    with closing(open_outbound_store(settings)) as store:
        run_worker(app, settings, role, lambda: store.register_doorbell(build_doorbell(app, FETCH, OUTBOUND_TASK)))
