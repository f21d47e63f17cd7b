"""The worker's entry: the only place in it that reads the environment."""

import sys
from contextlib import closing

from jobs.errors import ModelPackageError
from jobs.model_packages import check_packages
from jobs.store.doorbell import build_doorbell
from worker.celery_app import make_celery, start_up, tell_faults
from worker.celery_app import run as run_worker
from worker.lifecycle import ChildService, WorkerKind
from worker.process_state import served, write_served
from worker.settings import WorkerSettings
from worker.store import open_store

settings = start_up(WorkerSettings, "worker")


def _open_server(worker_id: str) -> ChildService:
    # Here, because torch is for children alone: the main process has no use for its 200 MB.
    from worker.classify.process import ClassifyProcess

    return ClassifyProcess(settings, served(), worker_id)


cards, load_errors = check_packages(settings.models_dir, settings.served)
role = WorkerKind(
    name="worker",
    entry="worker.main",
    models=tuple(card.ref for card in cards),
    children=settings.worker_children,
    open_server=_open_server,
    fault="the model cannot be served",
    load_errors=load_errors,
)
app = make_celery(settings, role)


def run() -> None:
    """Work until told to stop, or until no child can."""
    if not cards:
        tell_faults(settings, load_errors)
        sys.exit(f"darkroom worker: {'; '.join(load_errors.values())}")

    def introduce() -> None:
        for card in cards:
            try:
                store.register(card, {model: build_doorbell(app, model) for model in (card.name, card.ref)})
            except ModelPackageError as error:
                load_errors[card.ref] = str(error)
        if load_errors.keys() >= set(role.models):
            tell_faults(settings, load_errors)
            raise ModelPackageError("; ".join(load_errors.values()))
        tell_faults(settings, {})
        write_served({card.ref: card.sha256 for card in cards if card.ref not in load_errors})

    with closing(open_store(settings)) as store:
        run_worker(app, settings, role, introduce)
