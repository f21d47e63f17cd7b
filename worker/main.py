"""The worker's entry: the only place in it that reads the environment."""

import logging
import sys

from jobs.errors import SettingsError
from jobs.settings import load
from worker.app import make_celery, worker_arguments
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
    """Start the worker; returns when it was told to stop."""
    app.worker_main(worker_arguments(settings))
