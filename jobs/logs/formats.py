"""How all services log: lines of text or, with `LOG_FORMAT=json`, one JSON object a line.

A message whose only argument is a dict, and `extra=`, have fields beside the message: `request_id`, `job_id`.
"""

import logging
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn

TEXT = "%(levelname)s %(name)s: %(message)s"
log = logging.getLogger("darkroom")


def configure_logging(log_format: str) -> None:
    """Once a process. Anything but `json` is text."""
    if log_format != "json":
        logging.basicConfig(level=logging.INFO, format=TEXT, stream=sys.stdout)
        return
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(_json_formatter())
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.captureWarnings(capture=True)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda args: _log_uncaught(args.exc_type, args.exc_value, args.exc_traceback)


def stop(line: str, log_format: str) -> NoReturn:
    """End this process with an error: its last line, in the format of the others."""
    if log_format != "json":
        sys.exit(line)
    log.critical(line)
    sys.exit(1)


def _json_formatter() -> logging.Formatter:
    from pythonjsonlogger.json import JsonFormatter  # noqa: PLC0415 - costs nothing if it is not used

    class JsonLines(JsonFormatter):
        def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
            super().add_fields(log_data, record, message_dict)
            log_data.pop("color_message", None)  # uvicorn's, for terminals
            if isinstance(record.args, Mapping):
                log_data.update(record.args)

    names = {"levelname": "level", "name": "logger", "exc_info": "exception"}
    return JsonLines("%(levelname)s %(name)s %(message)s %(process)d", rename_fields=names, timestamp=True)


def _log_uncaught(kind: type[BaseException], error: BaseException | None, traceback: TracebackType | None) -> None:
    if error is None or issubclass(kind, KeyboardInterrupt | SystemExit):
        sys.__excepthook__(kind, error or kind(), traceback)
    else:
        log.critical("uncaught exception", exc_info=(kind, error, traceback))
