"""The files in which the processes of one service keep their metrics, so that a scrape reads those of all.

prometheus_client names such files by pid: each child that dies leaves some for ever. Here a process has a slot, the
first that no living process has: there are as many files as processes at one time, and a new child counts on where the
last one in its slot ended (docs/decisions/0057-metrics.md).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from jobs.metrics.process_metrics import CHILD_RESTARTS, Kind, open_metrics
from jobs.service_folder import service_folder, try_lock

FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
"""Where the processes that a service starts find its folder. prometheus_client reads it, too."""
_PREFIX = "darkroom-metrics-"
_SLOTS_MAX = 1024

_slot_locks = list[int]()
"""Open files that hold this process's slot; the system closes them at its end, however that comes."""


@contextmanager
def metrics_folder() -> Iterator[Path]:
    """An empty folder, which the processes started within the context find. Removes what killed services have left."""
    with service_folder(_PREFIX) as folder:
        os.environ[FOLDER_VARIABLE] = str(folder)
        try:
            yield folder
        finally:
            del os.environ[FOLDER_VARIABLE]


def join_metrics(kind: Kind) -> None:
    """Count in this process from now on. No effect if its service has no metrics."""
    folder = os.environ.get(FOLDER_VARIABLE)
    if not folder:
        return
    from prometheus_client import values

    slot, used_before = _take_slot(Path(folder))
    values.ValueClass = cast("Any", values).MultiProcessValue(lambda: slot)
    open_metrics(kind)
    if used_before:
        CHILD_RESTARTS.add()


def _take_slot(folder: Path) -> tuple[int, bool]:
    """The slot, and whether another process had it before."""
    for slot in range(_SLOTS_MAX):
        path = folder / f"slot-{slot}"
        lock = try_lock(path)
        if lock is not None:
            _slot_locks.append(lock)
            used_before = os.fstat(lock).st_size > 0
            os.write(lock, b"1")
            return slot, used_before
    raise RuntimeError(f"{_SLOTS_MAX} processes of one service")
