"""An API and a worker of an earlier release run beside those of this one."""

import asyncio
import signal
import subprocess
import sys
import time
from pathlib import Path

from chaos.faults.context import FaultContext, NotInjected
from chaos.fleet import POISON_WORKER
from tests.support.processes import ROOT

SPOOL = Path("jobs/spool")
EARLIER_SECONDS = 24 * 60 * 60


async def mix_releases(context: FaultContext) -> float:
    """A rolling change of the release, there and back: for a while, each is given work that the other has stored.

    A worker takes part only if its release knows uploads outside Redis. A clone without the history has no earlier
    release; `tests/stores/` has what earlier ones have stored.
    """
    tree = context.fleet.folder / "earlier"
    if not tree.exists():
        await asyncio.to_thread(_check_out, tree)
    commands = {context.random.choice(context.fleet.apis): [sys.executable, "-P", "-m", "api"]}
    if (tree / SPOOL).exists():  # a worker without it may not run beside uploads outside Redis: CHANGELOG.md
        commands[context.worker()] = [sys.executable, str(tree / POISON_WORKER.relative_to(ROOT))]
    now = {process: (process.arguments, process.environment) for process in commands}
    slowest = 0.0
    with context.ledger.releases_mixed():
        try:
            for process, command in commands.items():
                process.arguments = command
                process.environment = process.environment | {"PYTHONPATH": str(tree)}
                slowest = max(slowest, await context.restart(process, signal.SIGTERM))
            await asyncio.sleep(context.freeze_seconds)
            slowest = max(slowest, await context.seconds_until_all_work(time.monotonic()))
        finally:
            for process, (arguments, environment) in now.items():
                process.arguments, process.environment = arguments, environment
                slowest = max(slowest, await context.restart(process, signal.SIGTERM))
    return slowest


def _check_out(tree: Path) -> None:
    """The newest commit that is a day older than this one."""
    since = int(_git("log", "-1", "--format=%ct") or 0) - EARLIER_SECONDS
    commit = _git("rev-list", "-1", f"--before={since}", "HEAD")
    if not commit:
        raise NotInjected("this clone has no commit that is a day older")
    tree.mkdir()
    archive = tree / "tree.tar"
    _git("archive", "--output", str(archive), commit)
    subprocess.run(["tar", "--extract", "--file", str(archive), "--directory", str(tree)], check=True)


def _git(*arguments: str) -> str:
    """What git prints; empty if it fails."""
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True).stdout.strip()
