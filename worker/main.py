"""The worker's entry: the only place in it that reads the environment."""

import logging
import sys

from jobs.errors import ModelPackageError, SettingsError
from jobs.models import check_package
from jobs.server import check_server
from jobs.settings import load
from worker.app import fault, make_celery, worker_arguments
from worker.settings import WorkerSettings

logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
for chatty in ("celery.worker.strategy", "celery.app.trace"):  # a line or two for every doorbell
    logging.getLogger(chatty).setLevel(logging.WARNING)
try:
    settings = load(WorkerSettings)
except SettingsError as error:
    sys.exit(f"darkroom worker: {error}")
app = make_celery(settings)


def run() -> None:
    """Work until told to stop, or until no child can."""
    try:
        check_server(settings)
        check_package(settings.models_dir / settings.model)
    except (SettingsError, ModelPackageError) as error:
        sys.exit(f"darkroom worker: {error}")
    try:
        app.worker_main(worker_arguments(settings))
    finally:
        if reason := fault():
            sys.exit(f"darkroom worker: {reason}")
