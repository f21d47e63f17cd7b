"""What an image costs Redis, and so how many images a second one Redis can take: the figures of docs/SCALE.md.

    .venv/bin/python -m bench.store [--seconds 10]

One API process and a worker of two children, as shipped, on an embedded Valkey with an append-only file and an fsync at
every write. Redis' own counters are read before and after each load. CPU is what the machine gave: run it on one that
does nothing else.
"""

import argparse
import asyncio
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

from bench.__main__ import MODES, Row, archive, measure, shots
from bench.bulk.archives import images
from bench.limit import jpegs
from bench.services import SECURED, Darkroom, darkroom

DAY_SECONDS, SHORTEST_SECONDS = 86_400, 600
"""As RESULT_TTL_SECONDS and MIN_RESULT_TTL_SECONDS."""
RECORDS_FRACTION = 0.3  # as RECORDS_BUDGET_FRACTION
MEASURED_SECONDS = 10.0
IDLE_SECONDS = 10
SINGLES = (
    ("submit and poll", "PNG", 512),
    ("submit and wait", "PNG", 128),
    ("submit and wait", "PNG", 8),
    ("submit and wait", "JPEG", 64),
)
HEAD = (
    "load",
    "images/s here",
    "calls",
    "scripts, µs",
    "thread by the clock, µs",
    "CPU, µs",
    "in, B",
    "out, B",
    "file, B",
    "kept, B",
    "one core: images/s",
    "network then, MB/s",
    "1 GiB keeps a day of images/s",
    "and 10 minutes of",
)


class Counters(NamedTuple):
    """Of the server, since its start."""

    calls: int
    commands_us: float
    """In commands; scripts are nearly all of it."""
    loop_us: float
    """In which the one thread that runs commands was busy or waited for an fsync or a core, by the clock."""
    cpu_us: float
    """Of the process: the main thread, and the kernel's part for it."""
    received: int
    sent: int
    written: int
    """Bytes of the append-only file."""
    records: int
    """Bytes that the record budget counts, of jobs that are kept."""

    @classmethod
    def read(cls, service: Darkroom) -> "Counters":
        redis: Any = service.stack.redis
        stats, commands = redis.info("stats"), redis.info("commandstats").values()
        return cls(
            calls=sum(it["calls"] for it in commands),
            commands_us=sum(it["usec"] for it in commands),
            loop_us=stats["eventloop_duration_sum"],
            cpu_us=1e6 * service.servers.cpu_seconds()["valkey"],
            received=stats["total_net_input_bytes"],
            sent=stats["total_net_output_bytes"],
            written=redis.info("persistence")["aof_current_size"],
            records=service.stack.stat("records"),
        )


def row(name: str, service: Darkroom, run: Callable[[], Row]) -> list[str]:
    """A line of the table. What `run` classifies before it measures counts in the server, too."""
    before, done = Counters.read(service), service.stack.stat("transitions")
    found = run()
    assert not found.wrong, f"{found.wrong} wrong classes"
    assert not found.failures, f"{found.failures} failures"
    count = service.stack.stat("transitions") - done
    each = [(after - then) / count for after, then in zip(Counters.read(service), before, strict=True)]
    _, _, _, cpu_us, received, sent, _, records = each
    one_core = 1e6 / cpu_us
    network = (received + sent) * one_core / 1e6
    room = RECORDS_FRACTION * (1 << 30) / records
    numbers = [found.images_per_second, *each, one_core, network, room / DAY_SECONDS, room / SHORTEST_SECONDS]
    return [name, *(f"{number:,.1f}" if number < 10 else f"{number:,.0f}" for number in numbers)]


def idle(service: Darkroom) -> str:
    """What one API process and a worker of two children cost while nobody submits."""
    before = Counters.read(service)
    time.sleep(IDLE_SECONDS)
    after = Counters.read(service)
    calls, cpu_us = ((getattr(after, name) - getattr(before, name)) / IDLE_SECONDS for name in ("calls", "cpu_us"))
    return (
        f"idle, an API process and a worker of two children: {calls:.0f} calls, {cpu_us / 1000:.1f} ms of CPU a second"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=MEASURED_SECONDS, help="of each load of single images")
    options = parser.parse_args()
    loads = {"PNG": shots(images()[:2000], "image/png"), "JPEG": shots(jpegs(32), "image/jpeg")}
    rows = [HEAD, ("---",) * len(HEAD)]

    def single(mode: str, image: str, in_flight: int) -> Row:
        return measure("Darkroom", service, mode, MODES[mode], image, loads[image], in_flight, options.seconds)

    def tar(image: str) -> Row:
        return asyncio.run(archive(service, image, loads[image]))

    with darkroom(SECURED) as service:
        named = {"{1}, {0}, {2} in flight".format(*load): partial(single, *load) for load in SINGLES}
        named |= {f"{image}, one tar": partial(tar, image) for image in loads}
        rows += [tuple(row(name, service, run)) for name, run in named.items()]
        at_rest = idle(service)
    print()
    for cells in rows:
        print("| " + " | ".join(cells) + " |")
    print(at_rest)


if __name__ == "__main__":
    main()
