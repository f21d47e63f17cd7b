"""The worker's entry: the only place in it that reads the environment."""

import logging
import signal
import sys

from jobs.errors import ModelPackageError, SettingsError
from jobs.models import check_package
from jobs.settings import load
from worker.app import fault, make_celery, register, worker_arguments
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
    for number in (signal.SIGINT, signal.SIGTERM):  # until Celery has its own; a container's first process has none
        signal.signal(number, lambda *_: sys.exit())
    try:
        _, card = check_package(settings.models_dir / settings.model)
        register(app, card, settings)
    except (SettingsError, ModelPackageError) as error:
        sys.exit(f"darkroom worker: {error}")
    try:
        app.worker_main(worker_arguments(settings))
    finally:
        if reason := fault():
            sys.exit(f"darkroom worker: {reason}")
