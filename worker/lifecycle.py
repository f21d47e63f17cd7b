"""What Celery's signals start and stop in a worker's main process and in its children."""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from billiard import active_children

from jobs.errors import ModelPackageError, SettingsError
from jobs.metrics.process_metrics import Kind
from jobs.metrics.processes import join_metrics
from jobs.store.doorbell import queue_of
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.keys import TASK
from jobs.tracing import close_tracing, open_tracing
from worker.process_state import ProcessState
from worker.reaper.reaper import Reaper
from worker.settings import LeasingSettings

log = logging.getLogger(__name__)

_MAINTAIN_POOL_SECONDS = 0.5
_GC_OBJECTS = 20_000  # allocated and not yet freed, before the youngest generation is collected; 700 by default
_STOP_SECONDS = 8  # Celery notices a signal after up to 5 s


class ChildService(Protocol):
    """What a child process runs."""

    def start(self) -> None:
        """Send heartbeats, and renew leases."""

    def run_slice(self, task_id: str, model: str) -> None:
        """Work for one slice of time, for the model whose doorbell rang: a name or `name@version`."""


@dataclass(frozen=True)
class WorkerKind:
    """The properties in which one kind of worker differs from another. Pickled for each child."""

    name: Kind
    models: tuple[str, ...]
    """The models to serve, each as `name@version`.

    The worker takes their doorbells, and those of a model's name while its version is the newest.
    """
    children: int
    open_child: Callable[[str, ProcessState], ChildService]
    """Called in each child with the worker's id. Imports what the main process does not need."""
    open_child_error: str
    """Describes a failure of `open_child`."""
    task: str = TASK
    load_errors: Mapping[str, str] = field(default_factory=dict)
    """Models that cannot be served, with the reasons that the main process has found."""


class WorkerLifecycle:
    def __init__(
        self, settings: LeasingSettings, kind: WorkerKind, worker_id: str, process_state: ProcessState
    ) -> None:
        self._settings = settings
        self._kind = kind
        self._worker_id = worker_id
        self._process_state = process_state
        self._reaper: Reaper | None = None
        self._child: ChildService | None = None
        self.restore: Callable[[LeaseStore], None] = lambda _: None
        """In the main process: registers the worker's models again if Redis has lost them."""

    # -- the main process

    def main_is_ready(self, sender: Any, **_: Any) -> None:
        # A child's exit sentinel can fire before the child can be waited for; Celery would then see the death only
        # when it checks its pool again, up to 5 s later.
        sender.hub.call_repeatedly(_MAINTAIN_POOL_SECONDS, sender.pool.maintain_pool)

        def consume(models: frozenset[str]) -> None:
            # Called in the reaper's thread. Celery's event loop may drop a call, or run it after a later one: the
            # reaper repeats it at each scan.
            sender.hub.call_soon(_consume_from, sender, frozenset(map(queue_of, models)))

        self._reaper = Reaper(
            self._settings,
            self._kind.models,
            self._worker_id,
            self._give_up,
            load_errors=self._load_errors,
            consume=consume,
            kill_child=_kill_child,
            restore=self.restore,
        )
        self._reaper.start()

    def main_is_stopping(self, **_: Any) -> None:
        """From now on the worker takes no doorbell, while its children finish their tasks."""
        self._process_state.write_stopping()
        if self._reaper is not None:
            self._reaper.worker_is_stopping()

    def main_stops(self, **_: Any) -> None:
        if self._reaper is not None:
            self._reaper.stop()

    def task_received(self, **_: Any) -> None:
        if self._reaper is not None:
            self._reaper.doorbell_taken()

    def task_failed(self, task_id: str, exception: BaseException, **_: Any) -> None:
        if self._reaper is not None:
            self._reaper.child_died(task_id, exception)

    def _load_errors(self) -> Mapping[str, str]:
        return {**self._kind.load_errors, **self._process_state.read_load_errors()}

    def _give_up(self, reason: str) -> None:
        """Stop this worker because of an error: with a signal, or at once if its event loop does not react to that."""
        log.error("giving up: %s", reason)
        self._process_state.write_stop_reason(reason)
        kill = threading.Timer(_STOP_SECONDS, self._kill)
        kill.daemon = True
        kill.start()
        os.kill(os.getpid(), signal.SIGTERM)

    def _kill(self) -> None:
        for child in active_children():  # a child that hangs would outlive this process
            os.kill(child.pid, signal.SIGKILL)
        self._process_state.remove()
        os._exit(1)

    # -- a child

    @property
    def child(self) -> ChildService:
        assert self._child is not None
        return self._child

    def child_starts(self, **_: Any) -> None:
        # A supervisor may signal all processes of a worker (systemd does, `tini -g`, a closed terminal): it is the main
        # process that stops its children, and a child that dies of the signal would look like a crash of its images.
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        try:
            self._child = self._kind.open_child(self._worker_id, self._process_state)
            join_metrics(self._kind.name)
            open_tracing(self._settings.otel_exporter_otlp_endpoint, self._kind.name)
            # What is loaded by now is never freed: searching it for cycles costs a tenth of a busy child's time.
            gc.freeze()
            gc.set_threshold(_GC_OBJECTS, 20, 50)
            self._child.start()
        except Exception as error:  # Celery would log it, and send tasks to this child all the same
            if not isinstance(error, (ModelPackageError, SettingsError)):
                log.exception("a child cannot start")
            self._process_state.write_stop_reason(f"{self._kind.open_child_error}: {error}")
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(1)

    def child_stops(self, **_: Any) -> None:
        close_tracing()


def _kill_child(pid: int) -> None:
    """Kill a child of this process; no effect on a pid that is none any more."""
    if pid in {child.pid for child in active_children()}:
        log.warning("killing the child %d, which sends no heartbeats", pid)
        os.kill(pid, signal.SIGKILL)


def _consume_from(consumer: Any, queues: frozenset[str]) -> None:
    consumed = frozenset(queue.name for queue in consumer.task_consumer.queues)
    for queue in queues - consumed:
        consumer.add_task_queue(queue)
    for queue in consumed - queues:
        consumer.cancel_task_queue(queue)
