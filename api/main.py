"""Starts the API: reads the settings, then serves until it is told to stop."""

import gc
import logging
import os
import sys

import uvicorn
from fastapi import FastAPI

from api.app import create_app
from api.asgi.uvicorn_protocol import SingleWriteProtocol
from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.settings import load, warn_of_removed_settings
from jobs.store.server_check import check_server

_GC_OBJECTS = 20_000  # allocated and not yet freed


def run() -> None:
    """Serve with the settings of the environment. Exits with one line if they are wrong."""
    try:
        settings = load(ApiSettings)
        app = app_of_process(settings)
        warn_of_removed_settings(os.environ)
        check_server(settings)
    except SettingsError as error:
        sys.exit(f"darkroom api: {error}")
    several = settings.api_processes > 1  # each a fresh interpreter, which imports and calls the factory
    uvicorn.run(
        "api.main:app_of_process" if several else app,
        factory=several,
        host=settings.host,
        port=settings.port,
        workers=settings.api_processes,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # the API does not use a client's address
        http=SingleWriteProtocol,
        ws="none",
        timeout_graceful_shutdown=int(settings.wait_seconds_max) + 5,
    )


def app_of_process(settings: ApiSettings | None = None) -> FastAPI:
    """The application of one API process, with logging and garbage collection set up for it.

    Raises:
        SettingsError
    """
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    app = create_app(settings or load(ApiSettings))
    # By default Python searches for reference cycles after every 700 new objects. Hundreds of requests in flight keep
    # some ten thousand objects: the searches take a tenth of the CPU. Objects that exist now are excluded for good.
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 50)
    return app
