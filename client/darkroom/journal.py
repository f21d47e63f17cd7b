"""What a submit has done, line by line in a file: the same call goes on after a crash."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from darkroom.errors import DarkroomError
from darkroom.parts import Part

try:
    import fcntl
except ImportError:  # on Windows, two commands at a time are not kept apart
    fcntl = None  # type: ignore[assignment]


class Journal:
    """Without a path, it is kept in memory. Another `call` (server and options) starts it anew."""

    def __init__(self, path: Path | str | None, call: Mapping[str, Any]) -> None:
        self._call = dict(call)
        self._file = None if path is None else _opened(Path(path))
        self.start_anew()
        if self._file is not None:
            self._read()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            self._file.close()

    def start_anew(self) -> None:
        self.key = uuid4().hex
        """The beginning of the Idempotency-Key of each request."""
        self.is_own_key = True
        """False if it is the caller's."""
        self.job_id: str | None = None
        self.parts = list[dict[str, Any]]()
        self._started = False

    @property
    def is_kept(self) -> bool:
        return self._file is not None

    def use_key(self, key: str) -> None:
        self.key, self.is_own_key = key, False

    def add_job(self, job_id: str) -> None:
        self.job_id = job_id
        self._write({"job": job_id})

    def add_part(self, part: Part, total: int) -> None:
        """`total` is how many items the job has with this part."""
        unreadable = {str(place): why for place, why in part.unreadable.items()}
        entry = {"images": part.images, "stamp": part.stamp, "unreadable": unreadable, "total": total}
        self.parts.append(entry if self._file is not None else {})
        self._write(entry)

    def begin(self) -> None:
        """Write the key down, before the first request uses it."""
        if not self._started and self._file is not None:
            self._file.seek(0)
            self._file.truncate()
            self._started = True
            self._write({"call": self._call, "key": self.key})

    def _write(self, entry: dict[str, Any]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry).encode() + b"\n")
            self._file.flush()

    def _read(self) -> None:
        assert self._file is not None
        data = self._file.read()
        lines = data.split(b"\n")[:-1]  # without one that a crash has cut off
        try:
            entries = [json.loads(line) for line in lines]
            if not entries or entries[0].get("call") != self._call:
                return
            self.key = entries[0]["key"]
            for entry in entries[1:]:
                if "job" in entry:
                    self.job_id = entry["job"]
                else:
                    self.parts.append(entry)
        except (ValueError, AttributeError, KeyError):
            self.start_anew()
            return
        self._started = True
        self._file.seek(len(b"\n".join([*lines, b""])))
        self._file.truncate()


def _opened(path: Path) -> Any:
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
    if fcntl is not None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            raise DarkroomError(f"The same call is running already: it holds {path}.") from None
    return file
