"""The Celery application of a worker: its settings, its one task, and how it is run."""

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import quote

from celery import Celery, Task, signals
from redis.exceptions import AuthenticationError, RedisError

from jobs.errors import ModelPackageError, SettingsError
from jobs.model_manifest import name_of
from jobs.outage_log import OutageLog
from jobs.settings import load, warn_of_removed_settings
from jobs.store.doorbell import queue_of
from jobs.store.redis_url import address_of
from jobs.store.server_check import check_server
from worker.broker import DoorbellAMQP
from worker.lifecycle import WorkerKind, WorkerLifecycle
from worker.process_state import close_process_state, model_load_errors, open_process_state, stop_reason
from worker.settings import LeasingSettings
from worker.store import open_store

S = TypeVar("S", bound=LeasingSettings)
_RETRY_SECONDS = 0.5
FAULT_SECONDS = 120  # Docker waits for up to a minute before it starts a container again

log = logging.getLogger(__name__)


def make_celery(settings: LeasingSettings, role: WorkerKind) -> Celery:
    """The application of a worker of this kind."""
    app = Celery(
        "darkroom",
        broker=_broker_url(settings.redis_url),
        amqp=DoorbellAMQP,
        include=[role.entry],  # what a spawned child imports
    )
    app.conf.update(
        task_acks_late=False,  # the lease is the only redelivery
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_time_limit=settings.task_time_limit_seconds,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # those with late acks, of which there are none
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_pool_start_method="spawn",  # a fork of a process that has used torch hangs
        worker_proc_alive_timeout=settings.load_seconds_max,  # a child loads before it says that it is up
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=2,
        broker_transport_options={
            "queue_order_strategy": "round_robin",  # of doorbells: none waits for another that rings for ever
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    processes = WorkerLifecycle(settings, role)
    known = {*role.models, *map(name_of, role.models)}

    def serve(task: Task, *rung_for: Any, **_: Any) -> None:  # whatever else another version's doorbell says: it rings
        model = rung_for[0] if rung_for and rung_for[0] in known else name_of(role.models[0])
        try:
            processes.serve(task.request.id, model)
        except RedisError as error:
            log.warning("a slice of work was cut short: %s", error)
        except Exception:
            # Not Celery's to know: a traceback on its way to the main process, which reads it in parts, is torn where
            # that connects to Redis anew, and what follows makes no sense to it.
            log.exception("a slice of work failed")

    app.task(serve, name=role.task, bind=True)

    signals.worker_init.connect(processes.main_starts, weak=False)
    signals.worker_ready.connect(processes.main_is_ready, weak=False)
    signals.worker_shutting_down.connect(processes.main_is_stopping, weak=False)
    signals.worker_shutdown.connect(processes.main_stops, weak=False)
    signals.task_received.connect(processes.task_received, weak=False)
    signals.task_failure.connect(processes.task_failed, weak=False)
    signals.worker_process_init.connect(processes.child_starts, weak=False)
    return app


def start_up(settings: type[S], name: str) -> S:
    """What an entry does first: logs to standard output, and settings from the environment.

    Raises:
        SystemExit: with one line where a setting is wrong.
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    for chatty in ("celery.worker.strategy", "celery.app.trace"):  # a line or two for every doorbell
        logging.getLogger(chatty).setLevel(logging.WARNING)
    try:
        return load(settings)
    except SettingsError as error:
        sys.exit(f"darkroom {name}: {error}")


def run(app: Celery, settings: LeasingSettings, role: WorkerKind, introduce: Callable[[], None]) -> None:
    """Work until told to stop, or until no child can. `introduce` makes the worker known, once Redis is there.

    Raises:
        SystemExit: with one line where something is wrong.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # until Celery has its own; a container's first process has none
        signal.signal(number, lambda *_: sys.exit())
    warn_of_removed_settings(os.environ)
    open_process_state()
    try:
        _introduce(settings, introduce)
        app.worker_main(_arguments(role))
    except (SettingsError, ModelPackageError) as error:
        sys.exit(f"darkroom {role.name}: {error}")
    finally:
        reason, load_errors = stop_reason(), {**role.load_errors, **model_load_errors()}
        close_process_state()
        if reason:
            if load_errors.keys() >= set(role.models):
                tell_faults(settings, load_errors)
            sys.exit(f"darkroom {role.name}: {reason}")


def tell_faults(settings: LeasingSettings, load_errors: Mapping[str, str]) -> None:
    """Leave word of why a worker of this host serves nothing, as it ends. None: take back what one before it left."""
    try:
        with closing(open_store(settings)) as store:
            store.show_load_errors(socket.gethostname(), load_errors, seconds=FAULT_SECONDS)
    except RedisError as error:
        log.warning("Redis was not told why: %s", error)


def _introduce(settings: LeasingSettings, introduce: Callable[[], None]) -> None:
    check_server(settings)
    outage = OutageLog("worker: waiting for Redis")
    while True:
        try:
            introduce()
            break
        except AuthenticationError:
            break  # `check_server` says what is wrong
        except RedisError as error:
            outage.failed(error)
            time.sleep(_RETRY_SECONDS)
    outage.recovered()
    check_server(settings)  # again: the first time it may not have been there


def _arguments(role: WorkerKind) -> list[str]:
    """The command line of `celery worker`."""
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    pool = ["--pool=prefork", f"--concurrency={role.children}"]
    return ["--quiet", "worker", *pool, f"--queues={','.join(map(queue_of, role.models))}", *options]


def _broker_url(redis_url: str) -> str:
    """The same server, as kombu writes its address."""
    if not redis_url.startswith("unix://"):
        return redis_url
    address = address_of(redis_url)
    user = "" if address.password is None else f"{quote(address.username, '')}:{quote(address.password, '')}@"
    return f"redis+socket://{user}{quote(address.unix_socket or '')}?virtual_host={address.database}"
