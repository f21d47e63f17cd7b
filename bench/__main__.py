"""Compare Darkroom with two common designs and with the limit of the machine: `make bench`.

    .venv/bin/python -m bench [--seconds 5] [--rounds 3]

Everything runs on one machine; compared services are measured alternately. Writes tables and a chart to bench/results/.
Server CPU is the CPU time of all processes of a service, from /proc. The client's CPU time is printed beside it.
"""

import argparse
import asyncio
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

import aiohttp
import torch

from bench import batches, report
from bench.bulk.archives import images, tar_of
from bench.bulk.client import BulkClient, CpuCost
from bench.client import Dialect, Shot, drive
from bench.limit import jpegs, limits
from bench.services import (
    AUTHORIZATION,
    LONG_POLL,
    POLL,
    SECURED,
    SYNCHRONOUS,
    TUTORIAL,
    WAIT,
    Darkroom,
    Service,
    darkroom,
)
from bench.services import synchronous as start_synchronous
from bench.services import tutorial as start_tutorial
from deploy.local.valkey import VALKEY_ENVIRONMENT
from tests.support.processes import MODEL
from worker.inference.images.limits import ImageLimits
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

IN_FLIGHT = (1, 8, 32, 128, 256, 512)  # from 512 on, most images are polled twice
BASELINE_IN_FLIGHT = (1, 8, 32)  # more make both slower: polling overloads the tutorial
MODES = {"submit and poll": POLL, "submit and wait": WAIT, "long poll": LONG_POLL}
# Ended jobs expire within the run: a million of them would exceed the record budget, and expiry is part of the cost.
SHORT_TTL = {"RESULT_TTL_SECONDS": "60", "MIN_RESULT_TTL_SECONDS": "60"}
BULK = "bulk, one tar"
OWN = "its own"
FIXED = (  # compared at these numbers in flight, too
    ("Darkroom", "submit and wait", 1),
    ("Darkroom", "submit and wait", 128),
    ("tutorial", OWN, 1),
    ("synchronous", OWN, 1),
)
BATCHES_SECONDS = 2
BULK_ITEMS = {"PNG": 10_000, "JPEG": 512}

Key = tuple[str, str, str, int]
"""Service, mode, image, in flight."""


@dataclass(frozen=True)
class Row:
    """One service under one load. CPU times are in ms an image."""

    service: str
    mode: str
    image: str
    in_flight: int
    images_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    p999_ms: float
    server_cpu_ms: float
    """Of all processes."""
    cpu_ms: dict[str, float]
    """Of each process with its children."""
    client_cpu_ms: float
    requests: float
    """Per image."""
    images: int
    wrong: int
    failures: int


def shots(uploads: Sequence[bytes], media_type: str) -> list[Shot]:
    """The images with the classes that the model gives them in this process."""
    settings = WorkerSettings()
    torch.set_num_threads(1)
    classifier = load_package(settings.models_dir / MODEL, ImageLimits.of(settings))
    found = []
    for upload in uploads:
        (outcome,) = classifier.classify([upload], [1])
        assert isinstance(outcome, list)
        found.append(Shot(upload, media_type, classifier.card.classes[outcome[0].class_index]))
    return found


def measure(
    name: str,
    service: Service,
    mode: str,
    dialect: Dialect,
    image: str,
    load: list[Shot],
    in_flight: int,
    seconds: float,
) -> Row:
    """Load a service, and measure its throughput, latency and CPU."""
    cpu = list[dict[str, float]]()

    def read_cpu() -> None:
        cpu.append(service.servers.cpu_seconds())

    result = drive(
        service.port, dialect, load, in_flight=in_flight, seconds=seconds, on_start=read_cpu, on_end=read_cpu
    )
    each = {process: 1000 * (cpu[1][process] - cpu[0][process]) / result.images for process in cpu[0]}
    row = Row(
        service=name,
        mode=mode,
        image=image,
        in_flight=in_flight,
        images_per_second=result.images_per_second,
        p50_ms=result.quantile_ms(0.5),
        p95_ms=result.quantile_ms(0.95),
        p99_ms=result.quantile_ms(0.99),
        p999_ms=result.quantile_ms(0.999),
        server_cpu_ms=sum(each.values()),
        cpu_ms=each,
        client_cpu_ms=1000 * result.client_cpu_s / result.images,
        requests=result.requests / result.images,
        images=result.images,
        wrong=result.wrong,
        failures=len(result.failures),
    )
    print(report.line(asdict(row)), *result.failures[:1], flush=True)
    return row


async def archive(service: Darkroom, image: str, load: list[Shot]) -> Row:
    """Submit one tar: from the first byte sent to the last result read."""
    count = BULK_ITEMS[image]
    body = tar_of([load[number % len(load)].image for number in range(count)])
    async with aiohttp.ClientSession(service.url, headers=AUTHORIZATION, read_bufsize=1 << 20) as http:
        client = BulkClient(service, http)
        cost = CpuCost(service.servers)
        assert await client.follow(await client.submit(body), [shot.class_name for shot in load]) == count
    spent = cost.of(count)
    each = {name: spent[f"{name}_cpu_ms_per_image"] for name in service.servers.cpu_seconds()}
    row = Row(
        "Darkroom", BULK, image, 1, spent["images_per_second"], 0, 0, 0, 0,
        spent["server_cpu_ms_per_image"], each, 0, 1 / count, count, 0, 0,
    )  # fmt: skip
    print(report.line(asdict(row)), flush=True)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=5, help="of each load, after a second of warm-up")
    parser.add_argument("--rounds", type=int, default=3, help="of the comparison")
    options = parser.parse_args()
    loads = {
        "PNG": shots(images()[:2000], "image/png"),
        "JPEG": shots(jpegs(32), "image/jpeg"),
    }
    rows = list[Row]()
    with ExitStack() as exits:
        ours = exits.enter_context(darkroom(SECURED | SHORT_TTL))
        tutorial = exits.enter_context(start_tutorial())
        synchronous = exits.enter_context(start_synchronous())
        for image, load in loads.items():
            for mode, dialect in MODES.items():
                for in_flight in IN_FLIGHT:
                    rows.append(measure("Darkroom", ours, mode, dialect, image, load, in_flight, options.seconds))
            for in_flight in BASELINE_IN_FLIGHT:
                for name, service, dialect in (
                    ("tutorial", tutorial, TUTORIAL),
                    ("synchronous", synchronous, SYNCHRONOUS),
                ):
                    rows.append(measure(name, service, OWN, dialect, image, load, in_flight, options.seconds))
        compared, fixed = compare(rows, ours, tutorial, synchronous, loads, options.rounds, options.seconds)
        facts = {
            "ready_seconds": ours.ready_seconds,
            "peak_bytes": ours.servers.peak_bytes(),
            "cores": os.cpu_count(),
            "allocator": "jemalloc" if "LD_PRELOAD" in VALKEY_ENVIRONMENT else "that of the C library",
            "image_bytes": {
                name: round(statistics.mean(len(shot.image) for shot in load)) for name, load in loads.items()
            },
        }
    found: dict[str, Any] = {
        "facts": facts,
        "limits": [asdict(limit) for limit in limits()],
        "batches": batch_sizes([row for row in compared if row.service == "Darkroom"], loads),
        "compared": [asdict(row) for row in compared],
        "fixed": [asdict(row) for row in fixed],
        "rows": [asdict(row) for row in rows],
    }
    report.write(found)
    bad = [row for row in (*rows, *compared, *fixed) if row.wrong or row.failures]
    sys.exit(f"wrong or failed: {bad}" if bad else 0)


def compare(
    rows: list[Row],
    ours: Darkroom,
    tutorial: Service,
    synchronous: Service,
    loads: dict[str, list[Shot]],
    rounds: int,
    seconds: float,
) -> tuple[list[Row], list[Row]]:
    """Medians of alternating runs: each load at the number in flight that was best before, and each load of `FIXED`."""
    best = dict[tuple[str, str, str], Row]()
    for row in rows:
        kind = row.service, row.mode, row.image
        if kind not in best or row.images_per_second > best[kind].images_per_second:
            best[kind] = row
    bests = [(*kind, row.in_flight) for kind, row in best.items()]
    fixed = [(service, mode, image, in_flight) for image in loads for service, mode, in_flight in FIXED]
    services: dict[str, Service] = {"Darkroom": ours, "tutorial": tutorial, "synchronous": synchronous}
    dialects = {"tutorial": TUTORIAL, "synchronous": SYNCHRONOUS}
    runs = defaultdict[Key, list[Row]](list)
    for _ in range(rounds):
        for key in dict.fromkeys([*bests, *fixed]):
            name, mode, image, in_flight = key
            dialect = dialects.get(name) or MODES[mode]
            runs[key].append(measure(name, services[name], mode, dialect, image, loads[image], in_flight, seconds))
        for image, load in loads.items():
            runs["Darkroom", BULK, image, 1].append(asyncio.run(archive(ours, image, load)))
    medians = {key: _median(of_key) for key, of_key in runs.items()}
    bests += [("Darkroom", BULK, image, 1) for image in loads]
    return [medians[key] for key in bests], [medians[key] for key in fixed]


def batch_sizes(rows: Sequence[Row], loads: dict[str, list[Shot]]) -> list[dict[str, Any]]:
    """Batch sizes that the model got under each of Darkroom's loads, in untimed runs: see bench/batches.py."""
    found = list[dict[str, Any]]()
    with (
        batches.recorded() as (environment, command, recorder),
        darkroom({**SECURED, **SHORT_TTL, **environment}, worker_command=command) as service,
    ):
        for row in rows:
            load = loads[row.image]
            if row.mode == BULK:
                for _ in range(2):  # in the first, the worker still adapts its slice size
                    recorder.begin()
                    asyncio.run(archive(service, row.image, load))
                    recorder.end()
            else:
                driven = drive(
                    service.port,
                    MODES[row.mode],
                    load,
                    in_flight=row.in_flight,
                    seconds=BATCHES_SECONDS,
                    on_start=recorder.begin,
                    on_end=recorder.end,
                )
                assert not driven.failures, driven.failures[0]
            load_of_row = {"mode": row.mode, "image": row.image, "in_flight": row.in_flight}
            sizes = recorder.sizes
            found.append(load_of_row | {"mean": statistics.mean(sizes), "forwards": batches.histogram(sizes)})
    return found


def _median(runs: list[Row]) -> Row:
    """The run of median throughput."""
    return sorted(runs, key=lambda row: row.images_per_second)[len(runs) // 2]


if __name__ == "__main__":
    main()
