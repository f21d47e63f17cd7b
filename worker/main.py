"""The worker's entry: the only place in it that reads the environment."""

import sys
from contextlib import closing

from jobs.doorbell import build_bell
from jobs.errors import ModelPackageError
from jobs.models import check_package
from worker.app import make_celery, start_up
from worker.app import run as run_worker
from worker.processes import Role, Server
from worker.settings import WorkerSettings
from worker.store import open_store

settings = start_up(WorkerSettings, "worker")


def _open_server(boot: str) -> Server:
    # Here, because torch is for children alone: the main process has no use for its 200 MB.
    from worker.child import Child
    from worker.loading import load_model

    return Child(settings, load_model(settings), boot)


role = Role(
    name="worker",
    entry="worker.main",
    model=settings.model,
    children=settings.worker_children,
    open_server=_open_server,
    fault="the model cannot be served",
)
app = make_celery(settings, role)


def run() -> None:
    """Work until told to stop, or until no child can."""
    try:
        _, card = check_package(settings.models_dir / settings.model)
    except ModelPackageError as error:
        sys.exit(f"darkroom worker: {error}")
    with closing(open_store(settings)) as store:
        run_worker(app, settings, role, lambda: store.register(card, build_bell(app, card.name)))
