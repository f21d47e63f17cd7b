"""The entry point of a classifying worker."""

from contextlib import closing
from functools import partial

from celery import Celery

from jobs.errors import ModelPackageError, SettingsError
from jobs.logs.formats import stop
from worker.celery_app import leave_load_errors, start_up
from worker.celery_app import run as run_worker
from worker.lifecycle import ChildService, WorkerKind
from worker.memory_check import check_memory
from worker.model_registration import ModelRegistration
from worker.process_state import ProcessState
from worker.settings import WorkerSettings
from worker.store import open_lease_store


def run() -> None:
    """Classify until stopped, or until no child can."""
    settings = start_up(WorkerSettings, "worker")
    registration = ModelRegistration(settings)
    if not registration.models:
        leave_load_errors(settings, registration.load_errors)
        stop(f"darkroom worker: {'; '.join(registration.load_errors.values())}", settings.log_format)
    try:
        check_memory(settings, registration.models)
    except SettingsError as error:
        leave_load_errors(settings, dict.fromkeys(registration.models, str(error)))
        stop(f"darkroom worker: {error}", settings.log_format)

    def introduce(app: Celery, process_state: ProcessState) -> None:
        try:
            registration.register(store, app)
        except ModelPackageError:
            leave_load_errors(settings, registration.load_errors)
            raise
        leave_load_errors(settings, {})
        process_state.write_served(registration.served())

    kind = WorkerKind(
        name="worker",
        models=registration.models,
        children=settings.worker_children,
        open_child=partial(_open_child, settings),
        open_child_error="the model cannot be served",
        load_errors=registration.load_errors,
    )
    with closing(open_lease_store(settings)) as store:
        run_worker(settings, kind, introduce, registration.restore)


def _open_child(settings: WorkerSettings, worker_id: str, process_state: ProcessState) -> ChildService:
    from worker.classify.process import ClassifyProcess  # torch takes 200 MB, which the main process does not need

    return ClassifyProcess(settings, worker_id, process_state)
