"""What a worker's main process and its children tell each other: files in a folder that the environment names."""

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp

_FOLDER = "DARKROOM_NOTES"  # in the environment, which spawned children inherit


def open_process_state() -> None:
    """In the main process, before there are children."""
    os.environ[_FOLDER] = mkdtemp(prefix="darkroom-")


def close_process_state() -> None:
    shutil.rmtree(os.environ.pop(_FOLDER))


def write_stop_reason(reason: str) -> None:
    """Why this worker stops, where that is for a fault of its own."""
    _write("fault", reason)


def stop_reason() -> str:
    return _read("fault") or ""


def write_served(hashes: Mapping[str, str]) -> None:
    """In the main process: what children are to serve, each `name@version` with the sha256 of its weights."""
    _write("served", json.dumps(dict(hashes)))


def served() -> dict[str, str]:
    return _object("served")


def write_load_errors(load_errors: Mapping[str, str]) -> None:
    """In a child: models that it cannot serve, and why."""
    _write("model-faults", json.dumps(dict(load_errors)))


def model_load_errors() -> dict[str, str]:
    """What the last child that was started has noted."""
    return _object("model-faults")


def write_stopping() -> None:
    """In the main process: no child is to show its presence any more."""
    _write("ending", "")


def is_stopping() -> bool:
    return _read("ending") is not None


def _object(name: str) -> dict[str, str]:
    found: dict[str, str] = json.loads(_read(name) or "{}")
    return found


def _write(name: str, text: str) -> None:
    """In one step, for others read it meanwhile."""
    with NamedTemporaryFile("w", dir=os.environ[_FOLDER], delete=False) as file:
        file.write(text)
    Path(file.name).replace(Path(os.environ[_FOLDER]) / name)


def _read(name: str) -> str | None:
    try:
        return (Path(os.environ[_FOLDER]) / name).read_text()
    except (KeyError, FileNotFoundError):  # a part of a worker that runs by itself, as in a test, has no notes
        return None
