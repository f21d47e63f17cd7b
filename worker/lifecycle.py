"""What Celery's signals start and stop, in a worker's main process and in its children."""

import gc
import logging
import os
import signal
import threading
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from billiard import active_children

from jobs.errors import ModelPackageError, SettingsError
from jobs.store.doorbell import queue_of
from jobs.store.keys import TASK
from worker.process_state import close_process_state, model_load_errors, write_stop_reason, write_stopping
from worker.reaper import Reaper
from worker.settings import LeasingSettings

log = logging.getLogger(__name__)

_WORKER_ID = "DARKROOM_BOOT"  # in the environment, which spawned children inherit
_MAINTAIN_POOL_SECONDS = 0.5
_GC_OBJECTS = 20_000  # made and not yet dropped, before it looks at the new ones; 700 by default
_STOP_SECONDS = 8  # Celery notices after up to 5 s


class ChildService(Protocol):
    """What a child process runs."""

    def start(self) -> None:
        """Show this process as ready, and keep its leases."""

    def serve(self, task_id: str, model: str) -> None:
        """Do what is to be done for one slice of time, for the model, a name or name@version, whose doorbell rang."""


@dataclass(frozen=True)
class WorkerKind:
    """What tells one kind of worker from another."""

    name: str
    entry: str
    """The module that a spawned child imports."""
    models: tuple[str, ...]
    """What is served, each as `name@version`. Its doorbells are taken, and those of its name while it is the newest."""
    children: int
    open_server: Callable[[str], ChildService]
    """Called in each child with the worker's boot id. Imports what the main process has no use for."""
    fault: str
    """What it means when that fails."""
    task: str = TASK
    load_errors: Mapping[str, str] = field(default_factory=dict)
    """Models that cannot be served, and why, where that is known before a child has tried."""


class WorkerLifecycle:
    def __init__(self, settings: LeasingSettings, role: WorkerKind) -> None:
        self._settings = settings
        self._role = role
        self._reaper: Reaper | None = None
        self._server: ChildService | None = None

    def serve(self, task_id: str, model: str) -> None:
        assert self._server is not None
        self._server.serve(task_id, model)

    # -- the main process

    def main_starts(self, **_: Any) -> None:
        os.environ[_WORKER_ID] = uuid.uuid4().hex[:8]

    def main_is_ready(self, sender: Any, **_: Any) -> None:
        # A child's exit sentinel can fire before the child can be waited for; Celery would then see the death only
        # at its next five-second look.
        sender.hub.call_repeatedly(_MAINTAIN_POOL_SECONDS, sender.pool.maintain_pool)

        def listen_to(models: frozenset[str]) -> None:
            # From the reaper's thread to Celery's loop, which may drop a call, or run it after a later one: it is made
            # again at the next scan.
            sender.hub.call_soon(_consume_from, sender, frozenset(map(queue_of, models)))

        self._reaper = Reaper(
            self._settings,
            self._role.models,
            os.environ[_WORKER_ID],
            _give_up,
            load_errors=self._load_errors,
            listen_to=listen_to,
        )
        self._reaper.start()

    def _load_errors(self) -> Mapping[str, str]:
        return {**self._role.load_errors, **model_load_errors()}

    def main_is_stopping(self, **_: Any) -> None:
        """Told to stop: from here on it takes no doorbell, while its children end what they have."""
        write_stopping()
        if self._reaper is not None:
            self._reaper.ending()

    def main_stops(self, **_: Any) -> None:
        if self._reaper is not None:
            self._reaper.stop()

    def task_received(self, **_: Any) -> None:
        if self._reaper is not None:
            self._reaper.bell_taken()

    def task_failed(self, task_id: str, exception: BaseException, **_: Any) -> None:
        if self._reaper is not None:
            self._reaper.child_died(task_id, exception)

    # -- a child

    def child_starts(self, **_: Any) -> None:
        try:
            self._server = self._role.open_server(os.environ[_WORKER_ID])
            # What is loaded by now stays: Python need not look through it for cycles, a tenth of a busy child's time.
            gc.freeze()
            gc.set_threshold(_GC_OBJECTS, 20, 50)
            self._server.start()
        except Exception as error:  # Celery would log it and send work to this child all the same
            if not isinstance(error, (ModelPackageError, SettingsError)):
                log.exception("a child cannot start")
            write_stop_reason(f"{self._role.fault}: {error}")
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(1)


def _consume_from(consumer: Any, queues: frozenset[str]) -> None:
    consumed = frozenset(queue.name for queue in consumer.task_consumer.queues)
    for queue in queues - consumed:
        consumer.add_task_queue(queue)
    for queue in consumed - queues:
        consumer.cancel_task_queue(queue)


def _give_up(reason: str) -> None:
    """Stop this worker for a fault: asked first, and ended where its event loop does not hear that."""
    log.error("giving up: %s", reason)
    write_stop_reason(reason)
    end = threading.Timer(_STOP_SECONDS, _end)
    end.daemon = True
    end.start()
    os.kill(os.getpid(), signal.SIGTERM)


def _end() -> None:
    for child in active_children():  # one that hangs would outlive this process
        os.kill(child.pid, signal.SIGKILL)
    close_process_state()
    os._exit(1)
