"""The Celery application of a worker: its configuration, its one task, and the run of its main process."""

import json
import logging
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import closing
from typing import Any, TypeVar
from urllib.parse import quote

import billiard.util
import celery.apps.worker
from celery import Celery, Task, signals
from redis.exceptions import AuthenticationError, RedisError

from jobs.errors import ModelPackageError, SettingsError
from jobs.logs.formats import configure_logging, stop
from jobs.logs.outage_log import OutageLog
from jobs.metrics.processes import join_metrics
from jobs.model_manifest import name_of
from jobs.setting_names.misspelt import refuse_misspelt_settings
from jobs.setting_names.removed import warn_of_removed_settings
from jobs.settings import load
from jobs.spool.spool import SpoolAway
from jobs.store.doorbell import queue_of
from jobs.store.for_workers.leases import LeaseStore
from jobs.store.metrics_endpoint import metrics_served
from jobs.store.redis_url import address_of
from jobs.store.server_check import check_server
from jobs.store.server_rights import WORKER
from worker.broker import DoorbellAMQP
from worker.lifecycle import WorkerKind, WorkerLifecycle
from worker.process_state import ProcessState
from worker.settings import LeasingSettings
from worker.store import open_lease_store

S = TypeVar("S", bound=LeasingSettings)
Introduce = Callable[[Celery, ProcessState], None]
Restore = Callable[[LeaseStore], None]
_RETRY_SECONDS = 0.5
_STDOUT = 1
LOAD_ERRORS_SECONDS = 120  # Docker waits for up to a minute before it restarts a container

log = logging.getLogger(__name__)


class WorkerApp(Celery):
    """Celery pickles its application for each child that it spawns: the child rebuilds it from the same arguments."""

    arguments: tuple[LeasingSettings, WorkerKind, str, ProcessState]
    lifecycle: WorkerLifecycle

    def __reduce__(self) -> Any:
        return _make_in_child, self.arguments


def _make_in_child(*arguments: Any) -> WorkerApp:
    _configure_logging(arguments[0].log_format)
    return make_celery(*arguments)


def make_celery(settings: LeasingSettings, kind: WorkerKind, worker_id: str, process_state: ProcessState) -> WorkerApp:
    """The application of a worker of this kind, in its main process and in its children."""
    app = WorkerApp("darkroom", broker=_broker_url(settings.redis_url), amqp=DoorbellAMQP)
    app.arguments = (settings, kind, worker_id, process_state)
    app.conf.update(
        task_acks_late=False,  # only leases redeliver work
        task_reject_on_worker_lost=False,
        task_ignore_result=True,
        task_time_limit=settings.task_time_limit_seconds,
        worker_cancel_long_running_tasks_on_connection_loss=True,  # affects late acks, of which there are none
        worker_send_task_events=False,
        worker_enable_remote_control=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        worker_pool_start_method="spawn",  # a fork of a process that has used torch hangs
        worker_proc_alive_timeout=settings.load_seconds_max,  # a child loads its models before it reports that it is up
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=2,
        broker_transport_options={
            "queue_order_strategy": "round_robin",  # so that no queue waits for another that is never empty
            "socket_timeout": 5,
            "socket_connect_timeout": 2,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    app.lifecycle = lifecycle = WorkerLifecycle(settings, kind, worker_id, process_state)
    known = {*kind.models, *map(name_of, kind.models)}

    def run_slice(task: Task, *rung_for: Any, **_: Any) -> None:  # another version's doorbell may have other arguments
        model = rung_for[0] if rung_for and rung_for[0] in known else name_of(kind.models[0])
        try:
            lifecycle.child.run_slice(task.request.id, model)
        except (RedisError, SpoolAway) as error:  # the sweep rings again: the next slice tries once more
            log.warning("a slice of work ended early: %s", error)
        except Exception:
            # Never let Celery see the exception. The main process reads results in pieces; a Redis reconnect in between
            # truncates the traceback and corrupts the pipe.
            log.exception("a slice of work failed")

    app.task(run_slice, name=kind.task, bind=True)

    if settings.log_format == "json":
        _keep_celery_from_logging_text()
    signals.worker_ready.connect(lifecycle.main_is_ready, weak=False)
    signals.worker_shutting_down.connect(lifecycle.main_is_stopping, weak=False)
    signals.worker_shutdown.connect(lifecycle.main_stops, weak=False)
    signals.task_received.connect(lifecycle.task_received, weak=False)
    signals.task_failure.connect(lifecycle.task_failed, weak=False)
    signals.worker_process_init.connect(lifecycle.child_starts, weak=False)
    signals.worker_process_shutdown.connect(lifecycle.child_stops, weak=False)
    return app


def start_up(settings: type[S], name: str) -> S:
    """The first step of an entry point: log to standard output, and read the settings from the environment.

    Warns of settings that were removed.

    Raises:
        SystemExit: a setting is wrong, or its name is misspelt; one line says which.
    """
    log_format = os.environ.get("LOG_FORMAT", "text")  # an error in the settings is logged in this format, too
    _configure_logging(log_format)
    warn_of_removed_settings(os.environ)
    try:
        loaded = load(settings)
        refuse_misspelt_settings(os.environ)
        address_of(loaded.redis_url)
    except SettingsError as error:
        stop(f"darkroom {name}: {error}", log_format)
    return loaded


def run(settings: LeasingSettings, kind: WorkerKind, introduce: Introduce, restore: Restore) -> None:
    """Run a worker's main process until it is stopped, or until none of its children can work.

    `introduce` registers the worker's models and doorbells, once Redis is there; `restore` does so again if Redis has
    lost them, and is called once a scan.

    Raises:
        SystemExit: the worker cannot start, or stopped because of an error; one line says why.
    """
    for number in (signal.SIGINT, signal.SIGTERM):  # until Celery sets its own; PID 1 of a container has no defaults
        signal.signal(number, lambda *_: sys.exit())
    process_state = ProcessState.create()
    try:
        with metrics_served(settings):
            join_metrics(kind.name)
            app = make_celery(settings, kind, uuid.uuid4().hex[:8], process_state)
            app.lifecycle.restore = restore
            _introduce(settings, lambda: introduce(app, process_state))
            app.worker_main(_arguments(kind))
    except (SettingsError, ModelPackageError) as error:
        stop(f"darkroom {kind.name}: {error}", settings.log_format)
    finally:
        reason, load_errors = process_state.read_stop_reason(), {**kind.load_errors, **process_state.read_load_errors()}
        process_state.remove()
        if reason:
            if load_errors.keys() >= set(kind.models):
                leave_load_errors(settings, load_errors)
            stop(f"darkroom {kind.name}: {reason}", settings.log_format)


def leave_load_errors(settings: LeasingSettings, load_errors: Mapping[str, str]) -> None:
    """Show for a while after this worker's end why it served no model. An empty mapping removes an earlier one's."""
    try:
        with closing(open_lease_store(settings)) as store:
            store.show_load_errors(socket.gethostname(), load_errors, seconds=LOAD_ERRORS_SECONDS)
    except RedisError as error:
        log.warning("cannot write the load errors to Redis: %s", error)


def _keep_celery_from_logging_text() -> None:
    def configure(**_: Any) -> None:  # in place of Celery's own, which adds handlers
        logger = billiard.util.get_logger()
        logger.propagate = True
        logger.setLevel(logging.ERROR)

    signals.setup_logging.connect(configure, weak=False)
    # In a child that is spawned, billiard would add one. Celery sets this variable for it.
    signals.celeryd_after_setup.connect(lambda **_: os.environ.pop("_MP_FORK_LOGLEVEL_", None), weak=False)
    celery.apps.worker.safe_say = _say_as_json


def _say_as_json(message: str, *_: Any) -> None:
    """What Celery says in a handler of a signal, where no lock may be taken: so not by a logger."""
    os.write(_STDOUT, json.dumps({"level": "INFO", "message": message}).encode() + b"\n")


def _configure_logging(log_format: str) -> None:
    configure_logging(log_format)
    for verbose in ("celery.worker.strategy", "celery.app.trace"):  # they log each doorbell
        logging.getLogger(verbose).setLevel(logging.WARNING)


def _introduce(settings: LeasingSettings, introduce: Callable[[], None]) -> None:
    check_server(settings, WORKER)
    outage = OutageLog("worker: waiting for Redis")
    while True:
        try:
            introduce()
            break
        except AuthenticationError:
            break  # `check_server` reports it
        except RedisError as error:
            outage.failed(error)
            time.sleep(_RETRY_SECONDS)
    outage.recovered()
    check_server(settings, WORKER)  # again: Redis may not have been there the first time


def _arguments(kind: WorkerKind) -> list[str]:
    """The command line of `celery worker`."""
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=INFO"]
    pool = ["--pool=prefork", f"--concurrency={kind.children}"]
    return ["--quiet", "worker", *pool, f"--queues={','.join(map(queue_of, kind.models))}", *options]


def _broker_url(redis_url: str) -> str:
    """The same server as a URL in kombu's form.

    Raises:
        SettingsError
    """
    address = address_of(redis_url)
    if address.tls is not None:  # without a parameter of TLS, kombu accepts any certificate
        return f"{redis_url}{'&' if '?' in redis_url else '?'}ssl_cert_reqs=required"
    if address.unix_socket is None:
        return redis_url
    user = "" if address.password is None else f"{quote(address.username, '')}:{quote(address.password, '')}@"
    return f"redis+socket://{user}{quote(address.unix_socket)}?virtual_host={address.database}"
