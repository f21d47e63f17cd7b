"""Start-up times of the API, of the worker, and of `make run` with its environment installed.

    .venv/bin/python -m bench.cold [--starts 5]

Prints medians. The API is ready when it responds, the worker when all its processes have loaded their model, `make run`
when it prints so.
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

REQUIRED_SECONDS = {"API process": 1, "worker process, with all its children": 3, "make run, warm": 6}
READY = "Darkroom is ready"
_READY_SECONDS_MAX = 60


def services() -> list[float]:
    """Seconds until the API and the worker are ready, on their own stack."""
    with darkroom({}) as service:
        return [service.ready_seconds["api"], service.ready_seconds["worker"]]


def make_run(folder: Path) -> float:
    """Seconds until `make run` is ready, with its data in this folder, on a free port."""
    variables = [f"PORT={free_port()}", f"DATA_DIR={folder / 'data'}"]
    # A development environment contains all that .venv/run would install.
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
        make_run(Path(folder))  # warm-up: creates its data, and all files are in the page cache
        found = [[*services(), make_run(Path(folder))] for _ in range(starts)]
    text = begin_table(f"median of {starts} starts", "ready after, s", "all, s", "required, s")
    for (name, required), seconds in zip(REQUIRED_SECONDS.items(), zip(*found, strict=True), strict=True):
        each = ", ".join(f"{start:.2f}" for start in seconds)
        text.append(f"| {name} | {statistics.median(seconds):.2f} | {each} | {required} |")
    print("\n".join(text))


if __name__ == "__main__":
    main()
