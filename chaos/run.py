"""One run: a stack under load, one fault after another, and then the account."""

import argparse
import asyncio
import random
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from chaos.clients.bodies import Sample
from chaos.clients.load import Load
from chaos.clients.site import Site
from chaos.faults.context import Fault, FaultContext, NotInjected
from chaos.faults.table import ALONE, CONCURRENT, FAULTS, NOT_BRIEF
from chaos.fleet import MODELS, Fleet
from chaos.ledger import Ledger
from chaos.report import Report
from chaos.store_audit import StoreAudit
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training.data import load_fashion_mnist
from training.fmnist_mlp import png_on_white
from worker.inference.packages.load import load_package

SAMPLES = 1000
CONCURRENT_SHARE = 0.2
TTL_SECONDS = 300  # far more than a client on a busy machine takes until its second read of a job
END_SECONDS_MAX = 240.0
EXPIRY_SECONDS_MAX = 150.0  # after the time to live: what is no longer needed in S3 is looked for each minute
ONLY_SECONDS_MIN = 15.0  # of load, if a fault was injected as often as asked for
SHORT_SECONDS = 300  # up to here, a run has shorter freezes, one deploy instead of three, and each fault once
ROUNDS_MIN = 2  # of a longer run, however long they take
SETTINGS = {  # as short as the run needs; all other settings have their defaults
    "UPLOAD_IDLE_SECONDS_MAX": "8",
    "ROOM_WAIT_SECONDS_MAX": "12",
    "UPLOAD_SECONDS_MAX": "20",
    "UPLOAD_TTL_SECONDS": "55",
    "OPEN_JOB_SECONDS_MAX": "90",  # those that a client gave up end in the run
    "RETRY_AFTER_SECONDS": "1",
    "RESULT_TTL_SECONDS": str(TTL_SECONDS),
    "MIN_RESULT_TTL_SECONDS": str(TTL_SECONDS),
    "WEBHOOK_BACKOFF_SECONDS": "[1, 2, 4]",
    "LOSSES_MAX": "5",  # each loss of a poison that takes its worker along costs a start of the worker
    "WATCHDOG_SECONDS": "90",  # a busy machine loads two models slowly
}


def samples(models_dir: Path) -> list[Sample]:
    """Images, and what each model says of them in this process."""
    images = [png_on_white(image) for image in load_fashion_mnist(ROOT / "data/training").test.images[:SAMPLES]]
    expected = [dict[str, tuple[str, float]]() for _ in images]
    for model in MODELS:
        classifier = load_package(models_dir / model, LIMITS)
        for found, outcome in zip(expected, classifier.classify(images, [1] * len(images)), strict=True):
            assert isinstance(outcome, list)
            found[model] = classifier.card.classes[outcome[0].class_index], outcome[0].confidence
    return [Sample(image, found) for image, found in zip(images, expected, strict=True)]


class Run:
    def __init__(self, options: argparse.Namespace, fleet: Fleet) -> None:
        self._options = options
        self._fleet = fleet
        self._random = random.Random(options.seed)
        self._ledger = Ledger()
        self._short = options.seconds <= SHORT_SECONDS
        self._faults = [name for name in FAULTS if not (options.brief and name in NOT_BRIEF)]
        self._faults_min = 0 if options.only else len(self._faults) * (1 if self._short else ROUNDS_MIN)
        self._seconds_min = min(options.seconds, ONLY_SECONDS_MIN)
        images = samples(fleet.models_dir)
        self._site = Site([sample.image for sample in images], self._random)
        self._audit = StoreAudit(fleet)
        self._load = Load(
            fleet.urls,
            self._ledger,
            images,
            self._site,
            models=MODELS,
            rate=options.rate,
            seed=options.seed,
            audited=self._audit.has_read,
            recheck_seconds=10 if self._short else 50,
            end_seconds_max=options.end_seconds,
            refused_writes=fleet.refused_writes,
        )
        freeze_seconds, deploys = (7.0, 1) if self._short else (15.0, 3)  # longer than any lease that a fault sets
        self._context = FaultContext(
            fleet,
            self._load,
            self._ledger,
            self._audit,
            self._random,
            images[0].image,
            freeze_seconds,
            deploys,
            TTL_SECONDS,
            options.end_seconds / 2,
        )
        self.report = Report(self._ledger, self._load, self._site, short=self._short)

    async def run(self) -> bool:
        """Returns whether the stack passed."""
        async with self._site.serving():
            watch = asyncio.create_task(self._fleet.watch())
            audit = asyncio.create_task(self._audit.poll())
            load = asyncio.create_task(self._load.run())
            faults = asyncio.create_task(self._break(load))
            until_wrong = asyncio.create_task(self._until_wrong())
            try:
                await asyncio.wait((faults, until_wrong), return_when=asyncio.FIRST_COMPLETED)
                if not faults.done():
                    return False
                faults.result()
            finally:
                for task in (faults, until_wrong, watch, audit, load):
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task
        self.report.errors += await self._audit.errors_at_end(self._ledger)
        self.report.errors += [f"{name} exited by itself" for name in self._fleet.unexpected_exits]
        if not (self._options.until_wrong and self.report.problems()):
            await self._until_expired()
            self.report.errors += self._audit.leftovers()
        return not self.report.problems()

    async def _break(self, load: asyncio.Task[None]) -> None:
        """Inject fault after fault, then wait until everything that was accepted has ended."""
        began = time.monotonic()
        await asyncio.sleep(2)
        for number, name in enumerate(self._names()):
            if time.monotonic() - began > self._options.seconds and number >= self._faults_min:
                break
            if not self._short:
                await self._context.until_steady()
            await self._inject(name)
            await asyncio.sleep(self._random.uniform(0.2, 1.5))
        await asyncio.sleep(max(0.0, began + self._seconds_min - time.monotonic()))
        self.report.seconds = time.monotonic() - began
        self._load.stopping = True
        await load
        await self._until_ended()
        self.report.complete = True

    async def _until_wrong(self) -> None:
        while not (self._options.until_wrong and self.report.problems_so_far()):
            await asyncio.sleep(0.2)

    def _names(self) -> Iterator[str]:
        """The faults to inject: round after round, each in a new random order."""
        if self._options.only:
            yield from [self._options.only] * self._options.times
            return
        while True:
            one_round = list(self._faults)
            self._random.shuffle(one_round)
            yield from one_round

    async def _inject(self, name: str) -> None:
        """Injects it alone, so that a round has each fault, and sometimes once more together with another one."""
        fault = FAULTS[name]
        print(name, flush=True)
        self._ledger.begin_fault(name)
        await self._timed(name, fault)
        if not self._options.only and name in CONCURRENT and self._random.random() < CONCURRENT_SHARE:
            kind = name.split(maxsplit=1)[0]  # not two of one kind: both may restart the same process
            others = [it for it in self._faults if it not in (*CONCURRENT, *ALONE) and not it.startswith(kind)]
            other = self._random.choice(others)
            print(f"{name}, and {other}", flush=True)
            self._ledger.begin_fault("two at once")
            await asyncio.gather(
                self._timed("two at once", FAULTS[other]), self._timed("two at once", fault, quietly=True)
            )

    async def _timed(self, row: str, fault: Fault, *, quietly: bool = False) -> None:
        try:
            seconds = await fault(self._context)
        except NotInjected as error:
            if not quietly:
                self.report.not_injected(row, str(error))
        else:
            if not quietly:
                self.report.injected(row, seconds)

    async def _until_ended(self) -> None:
        """Aborted uploads are canceled, all jobs end, webhooks are called, and each worker is back."""
        until = time.monotonic() + self._options.end_seconds / 2
        while time.monotonic() < until and (
            self._fleet.pending()
            or self._fleet.redis.exists("open", "leases", "trash", "hooks")
            or self._fleet.workers_missing()
        ):
            await asyncio.sleep(0.2)
        self.report.errors += [f"{name} does not come back" for name in self._fleet.workers_missing()]

    async def _until_expired(self) -> None:
        until = time.monotonic() + min(EXPIRY_SECONDS_MAX, self._options.end_seconds)
        if self._fleet.steppable:
            self._fleet.set_clock(TTL_SECONDS + 1)
        else:
            until += TTL_SECONDS
        while time.monotonic() < until and self._audit.leftovers():
            await asyncio.sleep(0.5)
