"""Check that no process grows under hours of load: a steady load on this script's own stack; jobs are kept for 60 s.

    .venv/bin/python -m bench.soak [--minutes 30] [--rate 500]

Writes bench/results/soak.csv, a row every ten seconds. Then compares the resident memory of every process, and the used
memory that Valkey reports, after the first minutes (3 to 5 of 30) and at the end (the last 2 of 30). Exits with 1 if
one has grown by more than 5%, a submit was not accepted, or a job was not completed.
"""

import argparse
import asyncio
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.report import RESULTS, begin_table
from bench.services import Darkroom, darkroom
from bench.sustain import Load, Row, observe
from tests.support.waiting import eventually

SETTINGS = {"RESULT_TTL_SECONDS": "60", "MIN_RESULT_TTL_SECONDS": "60"}
EARLY, LATE = (3 / 30, 5 / 30), 28 / 30
"""Shares of the duration."""
GROWTH_MAX = 1.05
SENT_MIN = 0.99  # share of the configured rate: a slower client would measure another load
USED = "used_memory_mb"


async def soak(service: Darkroom, rate: int, seconds: float, path: Path) -> tuple[Load, list[Row]]:
    """The load, and a row every ten seconds."""

    def resident() -> Row:
        return {name: round(size / 1e6, 2) for name, size in service.servers.resident_bytes().items()}

    load, rows = Load(service.url, rate, seconds), list[Row]()
    observer = asyncio.create_task(observe(load, service.stack.redis, path, rows, resident))
    await load.run()
    observer.cancel()
    accepted = load.statuses[202]
    await eventually(lambda: service.stack.stat("transitions") >= accepted, what="the end of all accepted jobs")
    return load, rows


def grown(rows: Sequence[Row], seconds: float) -> dict[str, tuple[float, float, float]]:
    """For Valkey's memory and each process that ran at the start: MB early, MB late, and their ratio."""
    early = [row for row in rows if EARLY[0] * seconds <= row["second"] <= EARLY[1] * seconds] or [rows[0]]
    late = [row for row in rows if LATE * seconds <= row["second"] <= seconds] or [rows[-1]]
    found = {}
    for name in (name for name in rows[0] if name == USED or " " in name):
        means = [statistics.mean(row.get(name, 0) for row in some) for some in (early, late)]
        found[name] = (means[0], means[1], means[1] / means[0])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=int, default=500, help="submits a second")
    parser.add_argument("--minutes", type=float, default=30, help="at least half a minute")
    options = parser.parse_args()
    seconds = 60 * options.minutes
    with darkroom(SETTINGS) as service:
        load, rows = asyncio.run(soak(service, options.rate, seconds, RESULTS / "soak.csv"))
    growth = grown(rows, seconds)
    text = begin_table("memory, MB", "after the first minutes", "at the end", "ratio")
    text += [f"| {name} | {early:.1f} | {late:.1f} | {ratio:.3f} |" for name, (early, late, ratio) in growth.items()]
    print("\n".join(text))
    print(f"responses: {dict(load.statuses)}; read back: {dict(load.read_back)}")
    bad = [f"{name} is at {ratio:.2f}" for name, (_, _, ratio) in growth.items() if ratio > GROWTH_MAX]
    bad += [f"{name} has ended" for name in growth if name not in rows[-1]]
    bad += [f"{number} responses {status}" for status, number in load.statuses.items() if status != 202]
    bad += [f"{number} jobs {state}" for state, number in load.read_back.items() if state != "completed"]
    if load.statuses.total() < SENT_MIN * options.rate * seconds:
        bad.append(f"only {load.statuses.total()} submits were made")
    sys.exit("; ".join(bad) if bad else 0)


if __name__ == "__main__":
    main()
