"""Break a stack under load for a while, and check every image that it accepted: `make chaos`.

    .venv/bin/python -m chaos [--seconds 1200] [--rate 500] [--seed 1] [--only "Redis killed" --times 20]

Exits with 1 if any image was lost, doubled, changed or wrongly failed, or if the store keeps anything afterwards.
"""

import argparse
import asyncio
import random
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory

from chaos.faults.context import Fault, FaultContext, NotInjected
from chaos.faults.table import CONCURRENT, FAULTS
from chaos.fleet import Fleet
from chaos.ledger import Ledger
from chaos.load import Load
from chaos.report import Report
from chaos.store_audit import StoreAudit
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training.data import load_fashion_mnist
from training.fmnist_mlp import product_shot
from worker.inference.packages.load import load_package

SAMPLES = 1000
CONCURRENT_SHARE = 0.2
TTL_SECONDS = 300  # far more than a client on a busy machine takes until its second read of a job
SHORT_SECONDS = 300  # up to here, a run has shorter freezes, and one deploy instead of three
SETTINGS = {  # as short as the run needs; all other settings have their defaults
    "UPLOAD_IDLE_SECONDS_MAX": "8",
    "ROOM_WAIT_SECONDS_MAX": "12",
    "UPLOAD_SECONDS_MAX": "20",
    "UPLOAD_TTL_SECONDS": "60",
    "RETRY_AFTER_SECONDS": "1",
    "RESULT_TTL_SECONDS": str(TTL_SECONDS),
    "MIN_RESULT_TTL_SECONDS": str(TTL_SECONDS),
}


def samples() -> list[tuple[bytes, str]]:
    """Images, and the class that the model gives each of them in this process."""
    images = [product_shot(image) for image in load_fashion_mnist(ROOT / "data/training").test.images[:SAMPLES]]
    classifier = load_package(ROOT / "weights/fmnist-mlp", LIMITS)
    outcomes = classifier.classify(images, [1] * len(images))
    names = [classifier.card.classes[outcome[0].class_index] for outcome in outcomes if isinstance(outcome, list)]
    return list(zip(images, names, strict=True))


class Run:
    def __init__(self, options: argparse.Namespace, fleet: Fleet) -> None:
        self._options = options
        self._random = random.Random(options.seed)
        self._fleet = fleet
        self._ledger = Ledger()
        self._short = options.seconds <= SHORT_SECONDS
        self._faults_min = 0 if options.only else len(FAULTS)
        images = samples()
        self._load = Load(
            fleet.urls,
            self._ledger,
            images,
            rate=options.rate,
            seed=options.seed,
            recheck_seconds=10 if self._short else 50,
            refused_writes=fleet.refused_writes,
        )
        freeze_seconds, deploys = (7.0, 1) if self._short else (30.0, 3)
        self._context = FaultContext(fleet, self._load, self._random, images[0][0], freeze_seconds, deploys)
        self._report = Report(self._ledger, self._load)
        self._audit = StoreAudit(fleet)

    async def run(self) -> bool:
        """Returns whether the stack passed."""
        transitions = self._fleet.stat("transitions")
        watch = asyncio.create_task(self._fleet.watch())
        audit = asyncio.create_task(self._audit.poll())
        load = asyncio.create_task(self._load.run())
        began = time.monotonic()
        try:
            await asyncio.sleep(2)
            for number, name in enumerate(self._names()):
                if time.monotonic() - began > self._options.seconds and number >= self._faults_min:
                    break
                await self._inject(name)
                await asyncio.sleep(self._random.uniform(0.2, 1.5))
            self._report.seconds = time.monotonic() - began
            self._load.stopping = True
            await load
            await self._until_ended()
        finally:
            for task in (watch, audit, load):
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task
        self._report.wrong += self._audit.errors_at_end(transitions)
        self._report.unlisted = len(self._audit.items) - len(self._ledger.ids)
        await self._until_expired()
        self._report.wrong += self._audit.leftovers()
        self._report.unexpected_exits = self._fleet.unexpected_exits
        print(self._report.text())
        return self._report.passed

    def _names(self) -> Iterator[str]:
        """The faults to inject: round after round, each in a new random order."""
        if self._options.only:
            yield from [self._options.only] * self._options.times
            return
        while True:
            one_round = [name for name, (_, often) in FAULTS.items() for _ in range(1 if self._short else often)]
            self._random.shuffle(one_round)
            yield from one_round

    async def _inject(self, name: str) -> None:
        fault, _ = FAULTS[name]
        if not self._options.only and name in CONCURRENT and self._random.random() < CONCURRENT_SHARE:
            other = self._random.choice([each for each in FAULTS if each not in CONCURRENT and each != "deploys"])
            print(f"{name}, and {other}", flush=True)
            self._ledger.begin_fault("two at once")
            await asyncio.gather(
                self._timed("two at once", FAULTS[other][0]), self._timed("two at once", fault, quietly=True)
            )
        else:
            print(name, flush=True)
            self._ledger.begin_fault(name)
            await self._timed(name, fault)

    async def _timed(self, row: str, fault: Fault, *, quietly: bool = False) -> None:
        try:
            seconds = await fault(self._context)
        except NotInjected as error:
            if not quietly:
                self._report.not_injected(row, str(error))
        else:
            if not quietly:
                self._report.injected(row, seconds)

    async def _until_ended(self) -> None:
        """Aborted uploads are canceled, and jobs whose id no client got end, too."""
        until = time.monotonic() + 60
        while time.monotonic() < until and (
            self._fleet.stat("pending:public") or self._fleet.redis.exists("open", "leases", "trash")
        ):
            await asyncio.sleep(0.2)

    async def _until_expired(self) -> None:
        until = time.monotonic() + TTL_SECONDS + 60
        if self._fleet.steppable:
            self._fleet.set_clock(TTL_SECONDS + 1)
        while time.monotonic() < until and self._audit.leftovers():
            await asyncio.sleep(0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1200)
    parser.add_argument("--rate", type=float, default=500, help="images a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=FAULTS, help="inject only this fault")
    parser.add_argument("--times", type=int, default=1_000_000, help="with --only: how often at most")
    parser.add_argument("--logs", type=Path, help="keep the logs of all processes in this folder")
    options = parser.parse_args()
    with TemporaryDirectory(prefix="chaos-") as temporary:
        logs = options.logs or Path(temporary)
        logs.mkdir(parents=True, exist_ok=True)
        with Fleet(Path(temporary), logs, **SETTINGS) as fleet:
            passed = asyncio.run(Run(options, fleet).run())
    sys.exit(0 if passed else 1)


if __name__ == "__main__":
    main()
