"""The worker's entry: the only place in it that reads the environment."""

import sys
from contextlib import closing

from jobs.errors import ModelPackageError
from jobs.model_packages import check_packages
from jobs.store.doorbell import build_bell
from worker.celery_app import make_celery, start_up, tell_faults
from worker.celery_app import run as run_worker
from worker.lifecycle import Role, Server
from worker.process_state import note_served, served
from worker.settings import WorkerSettings
from worker.store import open_store

settings = start_up(WorkerSettings, "worker")


def _open_server(boot: str) -> Server:
    # Here, because torch is for children alone: the main process has no use for its 200 MB.
    from worker.classify.process import Serving

    return Serving(settings, served(), boot)


cards, faults = check_packages(settings.models_dir, settings.served)
role = Role(
    name="worker",
    entry="worker.main",
    models=tuple(card.ref for card in cards),
    children=settings.worker_children,
    open_server=_open_server,
    fault="the model cannot be served",
    faults=faults,
)
app = make_celery(settings, role)


def run() -> None:
    """Work until told to stop, or until no child can."""
    if not cards:
        tell_faults(settings, faults)
        sys.exit(f"darkroom worker: {'; '.join(faults.values())}")

    def introduce() -> None:
        for card in cards:
            try:
                store.register(card, {model: build_bell(app, model) for model in (card.name, card.ref)})
            except ModelPackageError as error:
                faults[card.ref] = str(error)
        if faults.keys() >= set(role.models):
            tell_faults(settings, faults)
            raise ModelPackageError("; ".join(faults.values()))
        tell_faults(settings, {})
        note_served({card.ref: card.sha256 for card in cards if card.ref not in faults})

    with closing(open_store(settings)) as store:
        run_worker(app, settings, role, introduce)
