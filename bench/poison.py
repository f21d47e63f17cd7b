"""Throughput of submit-and-wait with poison images, which crash or fail their process, against that without.

    .venv/bin/python -m bench.poison

Runs alternate (A B C A B C), so that drift of the machine affects all equally. Prints images/s and ratios of medians.
"""

import asyncio
import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from bench.closed_loop import closed_loop
from bench.services import GIB
from tests.integration.test_poison import PoisonWorker
from tests.support.pictures import samples
from tests.support.poison_worker import marked, one_shade
from tests.support.processes import ROOT
from tests.support.stack import Stack

ROUNDS, SECONDS, KILL_SECONDS = 3, 12, 35
KILL_EVERY_SECONDS = 30
IN_FLIGHT = 128
Images = Callable[[float], Iterator[bytes]]


def healthy(_began: float) -> Iterator[bytes]:
    return itertools.cycle(samples().values())


def five_percent_raise(began: float) -> Iterator[bytes]:
    for number, image in enumerate(healthy(began)):
        yield one_shade() if number % 20 == 7 else image


def one_kills(began: float) -> Iterator[bytes]:
    """One image that kills its process at the start, and one every 30 s."""
    due, poison = began, marked(next(iter(samples().values())), "exit")
    for image in healthy(began):
        if time.monotonic() >= due:
            due += KILL_EVERY_SECONDS
            yield poison
        yield image


def throughput(url: str, images: Images, seconds: float) -> float:
    """Images a second."""
    rate, _ = asyncio.run(closed_loop(url, images(time.monotonic()), in_flight=IN_FLIGHT, seconds=seconds))
    return rate


def main() -> None:
    cases: dict[str, tuple[Images, float]] = {
        "healthy": (healthy, SECONDS),
        "5 % raise": (five_percent_raise, SECONDS),
        "one kills every 30 s": (one_kills, KILL_SECONDS),
    }
    found: dict[str, list[float]] = {name: [] for name in cases}
    with TemporaryDirectory() as folder, Stack(Path(folder), maxmemory_bytes=GIB) as stack:
        api = stack.api()
        with PoisonWorker(stack.valkey.url, Path(folder), PYTHONPATH=str(ROOT)):
            throughput(api.url, healthy, 3)  # warm-up
            for _ in range(ROUNDS):
                for name, (images, seconds) in cases.items():
                    found[name].append(throughput(api.url, images, seconds))
                    print(f"{name}: {found[name][-1]:.0f} images/s", flush=True)
    base = statistics.median(found["healthy"])
    for name, rates in found.items():
        print(f"{name}: median {statistics.median(rates):.0f} images/s, ratio {statistics.median(rates) / base:.2f}")


if __name__ == "__main__":
    main()
