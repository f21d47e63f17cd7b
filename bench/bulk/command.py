"""The command `darkroom classify` beside a tar of the same images."""

import asyncio
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bench.bulk.archives import tar_of
from bench.bulk.client import BulkClient, connected

ROUNDS = 5
# Programs keep their bytecode from one run to the next, whatever this process does.
_ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
_MEASURE = """
import resource, subprocess, sys, time
began = time.perf_counter()
subprocess.run(sys.argv[1:], check=True)
print(time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""
"""Runs a command from a small process: a child's peak of memory begins with that of the process that forked it."""


async def command(pngs: list[bytes]) -> dict[str, Any]:
    """A folder of 10,000 PNGs by the command, its start included, in turns with one tar; and the client's import."""
    tar, tars, commands, peaks = tar_of(pngs), list[float](), list[float](), list[int]()
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pictures").mkdir()
        for number, png in enumerate(pngs):
            (folder / "pictures" / f"{number:05}.png").write_bytes(png)
        async with connected() as client:
            for _ in range(ROUNDS):
                tars.append(await _tar(client, tar, len(pngs)))
                seconds, peak = await asyncio.to_thread(_classify, client.service.url, folder, len(pngs))
                commands.append(seconds)
                peaks.append(peak)
    imports = [_python("import darkroom") - _python("") for _ in range(ROUNDS)]
    return {
        "tar_seconds": round(statistics.median(tars), 2),
        "command_seconds": round(statistics.median(commands), 2),
        "ratio": round(statistics.median(mine / its for mine, its in zip(commands, tars, strict=True)), 2),
        "command_peak_mib": max(peaks) >> 20,
        "import_seconds": round(statistics.median(imports), 3),
    }


async def _tar(client: BulkClient, tar: bytes, count: int) -> float:
    began = time.perf_counter()
    assert await client.follow(await client.submit(tar)) == count
    return time.perf_counter() - began


def _classify(url: str, folder: Path, count: int) -> tuple[float, int]:
    """Seconds, and bytes of memory at the peak."""
    program = Path(sys.executable).with_name("darkroom")
    results = folder / "results.csv"
    arguments: list[str | Path] = [
        program,
        "--url",
        url,
        "classify",
        folder / "pictures",
        "-o",
        results,
        "--new",
        "--quiet",
    ]
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, *map(str, arguments)],
        env=_ENVIRONMENT | {"XDG_STATE_HOME": str(folder)}, stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    seconds, peak_kib = done.stdout.split()
    rows = results.read_text().splitlines()
    assert len(rows) == 1 + count
    assert all(",succeeded," in row.replace('"', "") for row in rows[1:])
    return float(seconds), int(peak_kib) << 10


def _python(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=_ENVIRONMENT, check=True)
    return time.perf_counter() - began
