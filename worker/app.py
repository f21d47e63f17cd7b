"""The Celery application: its settings, its one task, and the hooks that start children and housekeeping."""

import logging
import os
import signal
import threading
import time
import uuid
from contextlib import closing
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from celery import Celery, Task, signals
from redis.exceptions import AuthenticationError, RedisError

from jobs.address import address_of
from jobs.doorbell import build_bell, queue_of
from jobs.errors import ModelPackageError
from jobs.keys import TASK
from jobs.models import Card
from jobs.server import check_server
from worker.broker import DoorbellAMQP
from worker.outage import Outage
from worker.reaper import Reaper
from worker.settings import WorkerSettings
from worker.store import open_store

if TYPE_CHECKING:
    from worker.child import Child

log = logging.getLogger(__name__)

_BOOT = "DARKROOM_BOOT"  # in the environment, which spawned children inherit
_FAULT_FILE = "DARKROOM_FAULT_FILE"  # where a child says why no child can work
_MAINTAIN_POOL_SECONDS = 0.5
_RETRY_SECONDS = 0.5
_STOP_SECONDS = 10


def make_celery(settings: WorkerSettings) -> Celery:
    """The application of a worker for one model."""
    app = Celery(
        "darkroom",
        broker=_broker_url(settings.redis_url),
        amqp=DoorbellAMQP,
        include=["worker.main"],  # what a spawned child imports
    )
    app.conf.update(
        task_acks_late=False,  # the lease is the only redelivery
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_time_limit=settings.task_time_limit_seconds,
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_pool_start_method="spawn",  # a fork of a process that has used torch hangs
        worker_proc_alive_timeout=120,  # a child loads torch and the model before it says that it is up
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=2,
        broker_transport_options={
            "queue_order_strategy": "priority",
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    processes = _Processes(settings)

    def classify(task: Task, _model: str) -> None:
        processes.serve(task.request.id)

    app.task(classify, name=TASK, bind=True)

    signals.worker_init.connect(processes.main_starts, weak=False)
    signals.worker_ready.connect(processes.main_is_ready, weak=False)
    signals.worker_shutdown.connect(processes.main_stops, weak=False)
    signals.task_received.connect(processes.task_received, weak=False)
    signals.task_failure.connect(processes.task_failed, weak=False)
    signals.worker_process_init.connect(processes.child_starts, weak=False)
    return app


def worker_arguments(settings: WorkerSettings) -> list[str]:
    """The command line of `celery worker`."""
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    pool = ["--pool=prefork", f"--concurrency={settings.worker_children}"]
    return ["--quiet", "worker", *pool, f"--queues={queue_of(settings.model)}", *options]


def _broker_url(redis_url: str) -> str:
    """The same server, as kombu writes its address."""
    if not redis_url.startswith("unix://"):
        return redis_url
    address = address_of(redis_url)
    user = "" if address.password is None else f"{quote(address.username, '')}:{quote(address.password, '')}@"
    return f"redis+socket://{user}{quote(address.unix_socket or '')}?virtual_host={address.database}"


def register(app: Celery, card: Card, settings: WorkerSettings) -> None:
    """Make the model known, once Redis is there, and see that it is one to trust jobs to.

    Raises:
        ModelPackageError: this version is known with other weights.
        SettingsError: as `check_server` has it.
    """
    check_server(settings)
    outage = Outage("worker")
    with closing(open_store(settings)) as store:
        while True:
            try:
                store.register(card, build_bell(app, card.name))
                break
            except AuthenticationError:
                break  # `check_server` says what is wrong
            except RedisError as error:
                outage.failed(error)
                time.sleep(_RETRY_SECONDS)
    outage.worked()
    check_server(settings)  # again: the first time it may not have been there


def fault() -> str:
    """Why this worker stopped, if it was for a fault of its own."""
    if _FAULT_FILE not in os.environ:
        return ""
    path = Path(os.environ[_FAULT_FILE])
    try:
        return path.read_text()
    finally:
        path.unlink()


def _note_fault(reason: str) -> None:
    Path(os.environ[_FAULT_FILE]).write_text(reason)


def _give_up(reason: str) -> None:
    """Stop this worker for a fault: asked first, and ended where its event loop does not hear that."""
    log.error("giving up: %s", reason)
    _note_fault(reason)
    end = threading.Timer(_STOP_SECONDS, os._exit, (1,))
    end.daemon = True
    end.start()
    os.kill(os.getpid(), signal.SIGTERM)


class _Processes:
    """What Celery's signals start and stop, in the main process and in its children."""

    def __init__(self, settings: WorkerSettings) -> None:
        self._settings = settings
        self._reaper: Reaper | None = None
        self._child: Child | None = None

    def serve(self, task_id: str) -> None:
        assert self._child is not None
        self._child.serve(task_id)

    # -- the main process

    def main_starts(self, **_: Any) -> None:
        os.environ[_BOOT] = uuid.uuid4().hex[:8]
        with NamedTemporaryFile(prefix="darkroom-fault-", delete=False) as file:
            os.environ[_FAULT_FILE] = file.name

    def main_is_ready(self, sender: Any, **_: Any) -> None:
        # A child's exit sentinel can fire before the child can be waited for; Celery would then see the death only
        # at its next five-second look.
        sender.hub.call_repeatedly(_MAINTAIN_POOL_SECONDS, sender.pool.maintain_pool)
        self._reaper = Reaper(self._settings, self._settings.model, os.environ[_BOOT], _give_up)
        self._reaper.start()

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
        # Here, because torch is for children alone: the main process has no use for its 200 MB.
        from worker.child import Child
        from worker.loading import load_model

        settings = self._settings
        try:
            classifier = load_model(settings)
            self._child = Child(settings, classifier, os.environ[_BOOT])
            self._child.start()
        except Exception as error:  # Celery would log it and send work to this child all the same
            if not isinstance(error, ModelPackageError):
                log.exception("a child cannot start")
            _note_fault(f"the model cannot be served: {error}")
            os.kill(os.getppid(), signal.SIGTERM)
            os._exit(1)
