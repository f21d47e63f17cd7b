"""Cut and heal the link between two hosts under load, and check every image that was accepted.

    .venv/bin/python -m chaos.hosts [--seconds 90] [--rate 150] [--cuts 2,6,20] [--workers 2]

As root, with Debian's redis-tools. Redis, API and outbound run in one network namespace, workers in another; all
connect with TLS, as the users of deploy/redis/users.conf. Exits with 1 if an image was lost, doubled, changed or
wrongly failed.
"""

import argparse
import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from chaos.clients.load import Load
from chaos.clients.site import Site
from chaos.faults.context import FaultContext
from chaos.fleet import MODELS
from chaos.hosts.fleet import TwoHosts
from chaos.hosts.network import python_on, set_link, two_hosts
from chaos.ledger import Ledger
from chaos.report import Report
from chaos.run import SETTINGS as SHORT_SETTINGS
from chaos.run import samples
from chaos.store_audit import StoreAudit

END_SECONDS_MAX = 180.0
TTL_SECONDS = 3600  # nothing expires in a run
SETTINGS = SHORT_SETTINGS | dict.fromkeys(("RESULT_TTL_SECONDS", "MIN_RESULT_TTL_SECONDS"), str(TTL_SECONDS))
RECHECK_SECONDS = 5
RECOVERY_SECONDS_MAX = 90.0
POLL_SECONDS = 0.1


class Run:
    def __init__(self, options: argparse.Namespace, fleet: TwoHosts) -> None:
        self._options = options
        self._fleet = fleet
        self._ledger = Ledger()
        images = samples(fleet.models_dir)
        self._site = Site([sample.image for sample in images], random.Random(options.seed))
        self._audit = StoreAudit(fleet)
        self._load = Load(
            [fleet.api.url],
            self._ledger,
            images,
            self._site,
            models=MODELS,
            rate=options.rate,
            seed=options.seed,
            audited=self._audit.has_read,
            recheck_seconds=RECHECK_SECONDS,
            end_seconds_max=END_SECONDS_MAX,
            refused_writes=lambda *_: False,
        )
        self._faults = FaultContext(  # of which a fresh image is asked for
            cast("Any", fleet),
            self._load,
            self._ledger,
            self._audit,
            random.Random(options.seed),
            images[0].image,
            freeze_seconds=0,
            deploys=0,
            result_ttl_seconds=TTL_SECONDS,
            recovery_seconds_max=RECOVERY_SECONDS_MAX,
        )
        self._cuts = list[str]()
        self.report = Report(self._ledger, self._load, self._site, short=True)

    async def run(self) -> bool:
        """Returns whether nothing was lost and nothing doubled."""
        async with self._site.serving():
            tasks = [asyncio.create_task(it) for it in (self._audit.poll(), self._load.run(), self._supervise())]
            try:
                await self._cut_and_heal()
                self._load.stopping = True
                await tasks[1]
                await self._until(self._is_done, "the end of what waits", END_SECONDS_MAX)
            finally:
                for task in tasks:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        self.report.complete = True
        self.report.errors += await self._audit.errors_at_end(self._ledger)
        return not self.report.problems()

    def text(self) -> str:
        title = "| the link was cut for, s | accepted meanwhile | ended meanwhile | fresh image classified after, s |"
        rows = [title, "| --- | --- | --- | --- |", *self._cuts]
        return "\n".join(
            [*rows, f"workers that exited and were started again: {self._fleet.starts}", "", self.report.text()]
        )

    async def _cut_and_heal(self) -> None:
        began = time.monotonic()
        await self._until(lambda: self._fleet.stat("transitions") > 0, "the first result", RECOVERY_SECONDS_MAX)
        cuts = [float(seconds) for seconds in self._options.cuts.split(",")]
        pause = max(2.0, (self._options.seconds - sum(cuts)) / (len(cuts) + 1))
        for seconds in cuts:
            await asyncio.sleep(pause)
            await self._cut(seconds)
        await asyncio.sleep(pause)
        self.report.seconds = time.monotonic() - began

    async def _cut(self, seconds: float) -> None:
        name = f"link cut for {seconds:g} s"
        print(name, flush=True)
        self._ledger.begin_fault(name)
        set_link(up=False)
        try:
            await asyncio.sleep(POLL_SECONDS)  # what was under way has arrived or is lost
            accepted, ended = self._fleet.stat("accepted"), self._fleet.stat("transitions")
            await asyncio.sleep(seconds - POLL_SECONDS)
            meanwhile = self._fleet.stat("accepted") - accepted, self._fleet.stat("transitions") - ended
        finally:
            set_link(up=True)
        recovery = await self._faults.seconds_until_work(time.monotonic())
        self._cuts.append(f"| {seconds:g} | {meanwhile[0]} | {meanwhile[1]} | {recovery:.1f} |")
        self.report.injected(name, recovery)

    def _is_done(self) -> bool:
        """Whether all has ended, webhooks and uploads that broke off included."""
        return not self._fleet.pending() and not self._fleet.redis.exists("open", "leases", "trash", "hooks")

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._fleet.restart_exited()

    async def _until(self, condition: Callable[[], bool], what: str, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > until:
                self.report.errors.append(f"no {what} within {seconds:g} s")
                return
            await asyncio.sleep(POLL_SECONDS)


def _run_inside() -> int:
    """Make the two namespaces, and run this command again in the first one. Returns its status."""
    if os.geteuid() != 0:
        sys.exit("only root can make network namespaces")
    with two_hosts() as (first, second):
        inside = python_on(first, "-m", "chaos.hosts", *sys.argv[1:], "--second", second)
        with subprocess.Popen(inside) as child:
            try:
                return child.wait()
            except BaseException:
                child.terminate()
                raise


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=90, help="of load")
    parser.add_argument("--rate", type=float, default=150, help="images a second")
    parser.add_argument(
        "--cuts", default="2,6,20", help="for how many seconds the link is cut, one time after the other"
    )
    parser.add_argument("--workers", type=int, default=2, help="on the second host, each of one child process")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes in this folder")
    parser.add_argument(
        "--second", help=argparse.SUPPRESS
    )  # the namespace of the workers; this process is on the first
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # after it has ended the processes of the stack
    if options.second is None:
        sys.exit(_run_inside())
    with TemporaryDirectory(prefix="hosts-") as temporary:
        logs = options.logs or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        with TwoHosts(Path(temporary), logs, options.second, workers=options.workers, **SETTINGS) as fleet:
            run = Run(options, fleet)
            passed = asyncio.run(run.run())
            print(run.text())
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
