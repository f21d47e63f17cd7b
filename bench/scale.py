"""Throughput by the number of processes, and the cost of an image by the number of waiting and of kept jobs.

    .venv/bin/python -m bench.scale [processes] [waiting] [--waiting 1000000] [--kept 100000]

`processes`: 1, 2 and 4 API processes, 1 to 8 worker processes, the other number as shipped. `waiting`: CPU of Valkey
and the worker to drain single-image jobs, alternately 1,000 per stack, so that drift of the machine affects all stacks
equally. Writes bench/results/scale.json and prints its tables.
"""

import argparse
import asyncio
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from typing import Any

import orjson

from bench.__main__ import SHORT_TTL, archive, measure, shots
from bench.backlog import Backlog, Cpu
from bench.bulk.archives import images
from bench.report import RESULTS, begin_table
from bench.servers import Servers
from bench.services import GIB, SECURED, WAIT, darkroom

CONFIGURATIONS = ((1, 2), (2, 2), (4, 2), (1, 1), (1, 4), (1, 8))  # API processes, worker processes
IN_FLIGHT, TARS = 128, 3
TURNS, TURN = 20, 1000
FEW = 10
MAXMEMORY_BYTES = 4 * GIB  # a million jobs of 600 B take 1.3 GiB
STOPPED = {"WATCHDOG_SECONDS": "3600", "TASK_TIME_LIMIT_SECONDS": "3600"}  # the worker is stopped for minutes
RESULT = RESULTS / "scale.json"
_STARTED_POLL_SECONDS, _STARTED_CPU_SECONDS = 0.5, 0.03
Found = list[dict[str, Any]]


def processes(options: argparse.Namespace) -> Found:
    """Throughput and cost of submit-and-wait and of one tar, by the number of processes."""
    load, found = shots(images()[:2000], "image/png"), Found()
    for api_processes, children in CONFIGURATIONS:
        settings = SECURED | SHORT_TTL | {"API_PROCESSES": str(api_processes)}
        with darkroom(settings, children=children) as service:
            _wait_until_started(service.servers)
            wait = measure("Darkroom", service, "submit and wait", WAIT, "PNG", load, IN_FLIGHT, options.seconds)
            tars = [asyncio.run(archive(service, "PNG", load)) for _ in range(1 + TARS)][1:]
            assert not wait.wrong, f"{wait.wrong} wrong classes"
            assert not wait.failures, f"{wait.failures} failures"
        tar = sorted(tars, key=lambda row: row.images_per_second)[TARS // 2]
        rows = {"wait": asdict(wait), "tar": asdict(tar)}
        found.append({"api_processes": api_processes, "worker_processes": children, **rows})
    return found


def _wait_until_started(servers: Servers) -> None:
    """Wait until all API processes have started: one of them responds before the others can."""
    spent = -1.0
    while (now := servers.cpu_seconds()["api"]) - spent > _STARTED_CPU_SECONDS:
        spent = now
        time.sleep(_STARTED_POLL_SECONDS)


def waiting(options: argparse.Namespace) -> Found:
    """CPU of an image if few jobs wait and few are kept, if many are kept, and if many wait."""
    pngs = images()[:2000]
    with ExitStack() as exits:

        def idle_stack(kept: int) -> Backlog:
            """A warm, idle stack that keeps `kept` ended jobs."""
            service = exits.enter_context(darkroom(STOPPED, maxmemory_bytes=MAXMEMORY_BYTES))
            # Valkey would rewrite its file of a million jobs in a child process, whose CPU counts only while it runs.
            service.stack.redis.config_set("auto-aof-rewrite-percentage", 0)
            exits.enter_context(service.servers.stopped("worker"))
            backlog = Backlog(service, pngs, maxmemory_bytes=MAXMEMORY_BYTES)
            _pass_through(backlog)
            backlog.fill(kept)
            backlog.drain(kept)
            return backlog

        few, many, long = idle_stack(FEW), idle_stack(options.kept), idle_stack(FEW)
        accepted = _accept(long, options.waiting)
        steady = f"{TURN:,} wait, {FEW} kept"
        found = _alternate(
            {
                steady: partial(_pass_through, few),
                f"{TURN:,} wait, {options.kept:,} kept": partial(_pass_through, many),
                f"{options.waiting:,} wait, the first {TURNS * TURN:,} of them": partial(long.drain, TURN),
            }
        )
        long.drain(long.left - TURNS * TURN)
        found += _alternate(
            {
                f"{steady}, again": partial(_pass_through, few),
                f"{options.waiting:,} waited, the last {TURNS * TURN:,}": partial(long.drain, TURN),
            }
        )
    return [*found, *accepted]


def _pass_through(backlog: Backlog) -> Cpu:
    """Submit, classify and delete one turn's jobs; the CPU of draining them."""
    ids = backlog.fill(TURN)
    spent = backlog.drain(TURN)
    backlog.delete(ids)
    return spent


def _alternate(cases: Mapping[str, Callable[[], Cpu]]) -> Found:
    """CPU of an image in each case, and its ratio to the first case."""
    spent = {name: Counter[str]() for name in cases}
    for _ in range(TURNS):
        for name, run in cases.items():
            spent[name].update(run())
    each = {name: {process: ms / (TURNS * TURN) for process, ms in of.items()} for name, of in spent.items()}
    first = sum(next(iter(each.values())).values())
    return [
        {"case": name, "cpu_ms": of, "server_cpu_ms": sum(of.values()), "by_first": sum(of.values()) / first}
        for name, of in each.items()
    ]


def _accept(backlog: Backlog, count: int) -> Found:
    """Let `count` jobs wait. Valkey's CPU of accepting the first and the last of them."""
    step = TURNS * TURN
    spent = list[float]()
    for _ in range(0, count, step):
        before = backlog.valkey_cpu_ms()
        backlog.fill(step)
        spent.append((backlog.valkey_cpu_ms() - before) / step)
    return [
        {"case": name, "cpu_ms": {"valkey": ms}, "server_cpu_ms": ms, "by_first": ms / spent[0]}
        for name, ms in (
            (f"accepting the first {step:,}", spent[0]),
            (f"accepting the last {step:,} of {count:,}", spent[-1]),
        )
    ]


def processes_table(found: Found) -> str:
    """The cores that each process keeps busy show the bottleneck."""
    heads = ["API processes", "worker processes", f"submit and wait, {IN_FLIGHT} in flight: images/s", "p50 · p99, ms"]
    text = begin_table(*heads, "server CPU, ms an image", "cores busy", "one tar: images/s", "its server CPU")
    for row in found:
        wait, tar = row["wait"], row["tar"]
        all_cpu = wait["cpu_ms"] | {"client": wait["client_cpu_ms"]}
        cores = ", ".join(f"{name} {ms * wait['images_per_second'] / 1000:.2f}" for name, ms in all_cpu.items())
        text.append(
            f"| {row['api_processes']} | {row['worker_processes']} | {wait['images_per_second']:,.0f} | "
            f"{wait['p50_ms']:.1f} · {wait['p99_ms']:.1f} | {_cpu(wait)} | {cores} | "
            f"{tar['images_per_second']:,.0f} | {_cpu(tar)} |"
        )
    return "\n".join(text) + "\n"


def waiting_table(found: Found) -> str:
    text = begin_table("single-image jobs", "CPU, ms an image", "× first case")
    text += [f"| {row['case']} | {_cpu(row)} | {row['by_first']:.2f} × |" for row in found]
    return "\n".join(text) + (
        "\n\nThe jobs were written to Valkey as the API writes them, while the worker was stopped. Draining: CPU of "
        f"Valkey and the worker, {TURN:,} jobs per stack in turn, with {MAXMEMORY_BYTES // GIB} GiB of Redis memory.\n"
    )


def _cpu(row: Mapping[str, Any]) -> str:
    each = ", ".join(f"{name} {ms:.3f}" for name, ms in row["cpu_ms"].items())
    return f"{row['server_cpu_ms']:.3f} ({each})"


CASES = {"processes": (processes, processes_table), "waiting": (waiting, waiting_table)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"{', '.join(CASES)}; default: both")
    parser.add_argument("--seconds", type=float, default=3, help="of each load, after a second of warm-up")
    parser.add_argument(
        "--waiting", type=int, default=1_000_000, help=f"a multiple of {TURNS * TURN}, at least twice that"
    )
    parser.add_argument("--kept", type=int, default=100_000, help="ended jobs that are kept")
    options = parser.parse_args()
    cases = options.cases or list(CASES)
    if unknown := set(cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(unknown)}")
    found = orjson.loads(RESULT.read_bytes()) if RESULT.exists() else {}
    for name in cases:
        measured, table = CASES[name]
        found[name] = measured(options)
        RESULT.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
        print(table(found[name]), flush=True)


if __name__ == "__main__":
    main()
