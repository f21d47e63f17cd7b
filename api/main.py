"""The API's entry: the only place in it that reads the environment."""

import gc
import logging
import os
import sys

import uvicorn
from starlette.types import ASGIApp

from api.app import create_app
from api.asgi.uvicorn_protocol import SingleWriteProtocol
from api.settings import ApiSettings
from jobs.errors import SettingsError
from jobs.settings import load, warn_of_removed_settings
from jobs.store.server_check import check_server

_GC_OBJECTS = 20_000  # made and not yet dropped


def app() -> ASGIApp:
    """What each API process runs."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s", stream=sys.stdout)
    application = create_app(load(ApiSettings))
    # By default Python looks for cycles after every 700 new objects, of which hundreds of requests in flight hold some
    # ten thousand: a tenth of this process's time. What is there now stays, and is not looked at again.
    gc.freeze()
    gc.set_threshold(_GC_OBJECTS, 20, 50)
    return application


def run() -> None:
    """Serve until told to stop."""
    try:
        app()  # here first, so that what is wrong is said once and in one line
        settings = load(ApiSettings)
        warn_of_removed_settings(os.environ)
        check_server(settings)
    except SettingsError as error:
        sys.exit(f"darkroom api: {error}")
    uvicorn.run(
        "api.main:app",
        factory=True,
        host=settings.host,
        port=settings.port,
        workers=settings.api_processes,
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,  # nothing here asks who a proxy says that the client is
        http=SingleWriteProtocol,
        ws="none",
        timeout_graceful_shutdown=int(settings.wait_seconds_max) + 5,
    )
