"""Starts the API: reads the settings, then serves until it is told to stop."""

import gc
import os
import sys
from contextlib import suppress

import uvicorn
from fastapi import FastAPI
from uvicorn.supervisors import Multiprocess

from api.app import create_app
from api.asgi.connection_limits import raise_open_files_limit
from api.asgi.uvicorn_protocol import protocol_factory
from api.exposure import check_exposure
from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.logs.formats import configure_logging, stop
from jobs.metrics.processes import join_metrics
from jobs.setting_names.misspelt import refuse_misspelt_settings
from jobs.setting_names.removed import warn_of_removed_settings
from jobs.settings import load
from jobs.store.metrics_endpoint import metrics_served
from jobs.store.server_check import check_server
from jobs.store.server_rights import API
from jobs.tracing import open_tracing

_STARTUP_FAILED = 3  # as uvicorn's own exit
_GC_OBJECTS = 20_000  # allocated and not yet freed


def run() -> None:
    """Serve with the settings of the environment. Exits with one line if they are wrong."""
    log_format = os.environ.get("LOG_FORMAT", "text")  # an error in the settings is logged in this format, too
    configure_logging(log_format)
    try:
        settings = load(ApiSettings)
        with metrics_served(settings):
            app = app_of_process(settings)
            warn_of_removed_settings(os.environ)
            refuse_misspelt_settings(os.environ)
            check_server(settings, API)
            check_exposure(settings, os.environ)
            _serve(settings, app)
    except SettingsError as error:
        stop(f"darkroom api: {error}", log_format)


def _serve(settings: ApiSettings, app: FastAPI) -> None:
    raise_open_files_limit()
    several = settings.api_processes > 1  # each a fresh interpreter, which imports and calls the factory
    config = uvicorn.Config(
        "api.main:app_of_process" if several else app,
        factory=several,
        host=settings.host,
        port=settings.port,
        workers=settings.api_processes,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the API does not use a client's address
        http=protocol_factory(settings),
        ws="none",
        timeout_keep_alive=int(settings.keep_alive_seconds),
        timeout_graceful_shutdown=int(settings.wait_seconds_max) + 5,
    )
    with suppress(KeyboardInterrupt):  # uvicorn raises it again once it has stopped for Ctrl-C
        if several:
            _Processes(config, sockets=[config.bind_socket()]).run()
            return
        server = uvicorn.Server(config)
        # On `::`, a socket of uvicorn's takes IPv4, too; one that asyncio makes does not.
        server.run(sockets=[config.bind_socket()] if settings.host == "::" else None)
        if not server.started:
            sys.exit(_STARTUP_FAILED)


class _Processes(Multiprocess):
    """uvicorn's supervisor of several API processes."""

    def terminate_all(self) -> None:
        """Stop all. This process lets go of the port before: else clients could connect while nobody accepts them."""
        for listener in self.sockets:
            listener.close()
        super().terminate_all()


def app_of_process(settings: ApiSettings | None = None) -> FastAPI:
    """The application of one API process, with logging and garbage collection set up for it.

    Raises:
        SettingsError
    """
    settings = settings or load(ApiSettings)
    configure_logging(settings.log_format)
    app = create_app(settings)
    join_metrics("api")
    open_tracing(settings.otel_exporter_otlp_endpoint, "api")
    # By default Python searches for reference cycles after every 700 new objects. Hundreds of requests in flight keep
    # some ten thousand objects: the searches take a tenth of the CPU. Objects that exist now are excluded for good.
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 50)
    return app
