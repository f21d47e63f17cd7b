"""The state that a worker's main process and its children share: small files in a temporary folder."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from tempfile import NamedTemporaryFile, mkdtemp
from typing import Self

_STOP_REASON = "stop-reason"
_SERVED = "served"
_LOAD_ERRORS = "load-errors"
_STOPPING = "stopping"


class ProcessState:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @classmethod
    def create(cls) -> Self:
        """In the main process, before it has children."""
        return cls(Path(mkdtemp(prefix="darkroom-")))

    def remove(self) -> None:
        shutil.rmtree(self._folder)

    def write_stop_reason(self, reason: str) -> None:
        """Why this worker stops because of an error."""
        self._write(_STOP_REASON, reason)

    def read_stop_reason(self) -> str:
        """Empty if the worker has no error."""
        return self._read(_STOP_REASON) or ""

    def write_served(self, hashes: Mapping[str, str]) -> None:
        """In the main process: the models to serve, each `name@version` with the sha256 of its weights."""
        self._write(_SERVED, json.dumps(dict(hashes)))

    def read_served(self) -> dict[str, str]:
        return self._read_mapping(_SERVED)

    def write_load_errors(self, load_errors: Mapping[str, str]) -> None:
        """In a child: the models that it cannot load, each with the reason."""
        self._write(_LOAD_ERRORS, json.dumps(dict(load_errors)))

    def read_load_errors(self) -> dict[str, str]:
        """The load errors of the child that started last."""
        return self._read_mapping(_LOAD_ERRORS)

    def write_stopping(self) -> None:
        """In the main process: the worker stops, and no child may send heartbeats any more."""
        self._write(_STOPPING, "")

    def read_stopping(self) -> bool:
        return self._read(_STOPPING) is not None

    def _read_mapping(self, name: str) -> dict[str, str]:
        mapping: dict[str, str] = json.loads(self._read(name) or "{}")
        return mapping

    def _write(self, name: str, text: str) -> None:
        """Replace the file in one step: other processes may read it at any time."""
        with NamedTemporaryFile("w", dir=self._folder, delete=False) as file:
            file.write(text)
        Path(file.name).replace(self._folder / name)

    def _read(self, name: str) -> str | None:
        try:
            return (self._folder / name).read_text()
        except FileNotFoundError:
            return None
