"""Measure bulk jobs on a stack of this script's own.

    .venv/bin/python -m bench.bulk [archive] [million] [interactive] [fairness] [eta] [cancel] [upload] [command]

Server CPU is that of Valkey, the API and the worker with their children. Writes bench/results/bulk.json.
"""

import argparse
import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import orjson

from bench.bulk.archives import images
from bench.bulk.capacity import archive, million, upload
from bench.bulk.command import command
from bench.bulk.scheduling import cancel, eta, fairness, interactive

RESULTS = Path("bench/results/bulk.json")
Case = Callable[[list[bytes]], Coroutine[Any, Any, dict[str, Any]]]
CASES: dict[str, Case] = {
    "archive": archive,
    "million": million,
    "interactive": interactive,
    "fairness": fairness,
    "eta": eta,
    "cancel": cancel,
    "upload": upload,
    "command": command,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="case", help=f"{', '.join(CASES)}; default: all")
    cases = parser.parse_args().cases or list(CASES)
    if unknown := set(cases) - CASES.keys():
        parser.error(f"there is no case {', '.join(unknown)}")
    pngs = images()
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    results = orjson.loads(RESULTS.read_bytes()) if RESULTS.exists() else {}
    for name in cases:
        results[name] = asyncio.run(CASES[name](pngs))
        print(name, json.dumps(results[name], indent=2), flush=True)
        RESULTS.write_bytes(orjson.dumps(results, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))


if __name__ == "__main__":
    main()
