"""From a cold start to ready: the API, the worker, and `make run` in an environment that is there.

    .venv/bin/python -m bench.cold [--starts 5]

Medians. The API is ready when it answers, the worker when all its processes show that they have loaded their model,
`make run` when it says so.
"""

import argparse
import os
import signal
import statistics
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.report import begin_table
from bench.services import darkroom
from tests.support.processes import Process, free_port
from tests.support.waiting import wait_until

MUST_SECONDS = {"API process": 1, "worker process, with all its children": 3, "make run, warm": 6}
READY = "Darkroom is ready"
_READY_SECONDS_MAX = 60


def services() -> list[float]:
    """Seconds of the API and of the worker, on a stack of their own."""
    with darkroom({}) as service:
        return [service.ready_seconds["api"], service.ready_seconds["worker"]]


def make_run(folder: Path) -> float:
    """Seconds of `make run` with its data in this folder, on a free port."""
    variables = [f"PORT={free_port()}", f"DATA_DIR={folder / 'data'}"]
    # What it would install is in an environment for development, too.
    make = Process(["make", "--old-file=.venv/run", "run", *variables], folder / "make.log", own_group=True)

    def is_ready() -> bool:
        assert make.running(), make.output()
        return READY in make.output()

    make.log.unlink(missing_ok=True)
    began = time.perf_counter()
    make.start()
    try:
        wait_until(is_ready, seconds=_READY_SECONDS_MAX, what=READY)
        return time.perf_counter() - began
    finally:
        os.killpg(make.pid, signal.SIGINT)  # as Ctrl-C in a terminal
        make.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--starts", type=int, default=5)
    starts = parser.parse_args().starts
    with TemporaryDirectory() as folder:
        make_run(Path(folder))  # so that its data is there, and all files are in the page cache
        found = [[*services(), make_run(Path(folder))] for _ in range(starts)]
    text = begin_table(f"median of {starts} starts", "ready after, s", "all, s", "must, s")
    for (name, must), seconds in zip(MUST_SECONDS.items(), zip(*found, strict=True), strict=True):
        each = ", ".join(f"{it:.2f}" for it in seconds)
        text.append(f"| {name} | {statistics.median(seconds):.2f} | {each} | {must} |")
    print("\n".join(text))


if __name__ == "__main__":
    main()
