"""Check in CI that Darkroom has not become slower: its efficiency by the in-process limit of the same run.

    .venv/bin/python -m bench.guard [--set]

Efficiency is the CPU that decoding and the forward pass take in one process, divided by the CPU of all servers for the
same image. As a ratio it does not depend on the speed of the machine. It falls, too, if decoding or the forward pass
gets cheaper, as the rest then weighs more: compare with the commit before, in turns, before `--set`. Exits with 1 if an
efficiency is more than 30% below bench/results/guard.json; `--set` writes that file.
"""

import argparse
import statistics
import sys

import orjson

from bench.__main__ import MODES, measure, shots
from bench.bulk.archives import images
from bench.limit import limits
from bench.report import RESULTS
from bench.services import SECURED, darkroom

LOADS = {"submit and poll": 512, "submit and wait": 128}
ROUNDS, SECONDS = 3, 3
LOSS_MAX = 0.3
_REFERENCE = RESULTS / "guard.json"


def efficiencies() -> dict[str, float]:
    """For each load, the efficiency of the median run."""
    load = shots(images()[:1000], "image/png")
    cpu_ms: dict[str, list[float]] = {mode: [] for mode in LOADS}
    with darkroom(SECURED) as service:
        for _ in range(ROUNDS):
            for mode, in_flight in LOADS.items():
                row = measure("Darkroom", service, mode, MODES[mode], "PNG", load, in_flight, SECONDS)
                assert not row.wrong, f"{row.wrong} wrong classes"
                assert not row.failures, f"{row.failures} failures"
                cpu_ms[mode].append(row.server_cpu_ms)
    limit_ms = next(limit.cpu_us for limit in limits(batches=(64,)) if limit.kind == "PNG") / 1000
    return {mode: limit_ms / statistics.median(found) for mode, found in cpu_ms.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="store_true", help="write the results as the reference of later runs")
    options = parser.parse_args()
    found = efficiencies()
    if options.set:
        _REFERENCE.write_bytes(orjson.dumps(found, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    reference: dict[str, float] = orjson.loads(_REFERENCE.read_bytes())
    for mode, efficiency in found.items():
        print(
            f"{mode}: {efficiency:.3f} of the limit's efficiency, {efficiency / reference[mode]:.2f} of the reference"
        )
    slower = [mode for mode, efficiency in found.items() if efficiency < (1 - LOSS_MAX) * reference[mode]]
    sys.exit(f"slower than it was: {', '.join(slower)}" if slower else 0)


if __name__ == "__main__":
    main()
