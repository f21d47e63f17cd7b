"""The table of a run, and whether the stack passed: what is printed as WRONG is what fails a run, and nothing else."""

import os
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime
from textwrap import wrap

from chaos.clients.load import Load
from chaos.clients.site import Site
from chaos.ledger import Ledger

RECOVERY_TARGET = (5, 15)  # seconds: median and maximum
TARGETS = {"worker's child killed": (1, 15)}
AVAILABILITY_PERCENT, ANSWER_SECONDS = 99, 5
STARVING_FACTOR, STARVING_SECONDS = 5, 2
HEAD = ("fault", "injected", "accepted", "lost", "doubled", "changed", "wrong", "cut short", "recovery p50 s", "max s")


class Report:
    def __init__(self, ledger: Ledger, load: Load, site: Site, *, short: bool) -> None:
        """`short`: a run of a few samples and on any machine, of which no times are asked."""
        self._ledger = ledger
        self._load = load
        self._site = site
        self._short = short
        self._recoveries = defaultdict[str, list[float]](list)
        self._not_injected = defaultdict[str, list[str]](list)
        self.errors = list[str]()
        """Errors in the store and of the processes."""
        self.seconds = 0.0
        self.complete = False
        """Whether everything that was accepted had its time to end. Before, what is missing is not wrong."""

    def injected(self, fault: str, seconds: float) -> None:
        self._recoveries[fault].append(seconds)

    def not_injected(self, fault: str, why: str) -> None:
        self._not_injected[fault].append(why)

    def problems(self) -> list[str]:
        """Everything that is wrong; empty if the stack passed."""
        ledger, found = self._ledger, self.problems_so_far()
        if not self.complete:
            return found
        if not ledger.items:
            found.append("no job was accepted")
        if ledger.broken and not ledger.examples:
            found.append(f"{ledger.broken} images are not as promised")
        found += self._missed_webhooks()
        return found if self._short else [*found, *self._too_slow(), *self._starving()]

    def problems_so_far(self) -> list[str]:
        """What is wrong whatever still happens in this run."""
        ledger, outcomes = self._ledger, self._load.outcomes
        found = [*self.errors, *ledger.examples]
        found += [f"{what} ({times} times)" for what, times in outcomes.violations.items()]
        return found + [f"{fault}: no recovery" for fault, them in self._recoveries.items() if float("inf") in them]

    def markdown(self, command: str) -> str:
        """The account as a part of docs/RELIABILITY.md."""
        ledger, outcomes, problems = self._ledger, self._load.outcomes, self.problems()
        seconds, fault = outcomes.slowest
        slow_owner, fast_owner = (f(self._medians().values(), default=0.0) for f in (max, min))
        images_a_second = ledger.items.total() / max(1.0, self.seconds)
        sentences = [
            f"{self.seconds:.0f} s, {len(ledger.jobs)} jobs, {images_a_second:.0f} images a second accepted.",
            f"Submits were accepted in {100 * outcomes.availability:.2f}% of the attempts while Redis took writes.",
            f"Of {len(ledger.doubts)} submits the client never knew what became of them.",
            f"The slowest response to an image or a form took {seconds:.2f} s ({fault}).",
            f"The clients themselves were late by up to {self._load.lag:.2f} s.",
            f"Half of each owner's single images ended within {fast_owner:.2f} to {slow_owner:.2f} s.",
        ]
        sentences += [
            f"Not injected: {fault} ({', '.join(sorted(set(why)))})." for fault, why in self._not_injected.items()
        ]
        sentences += [f"WRONG: {what}" for what in problems] or ["The promise held."]
        date = datetime.now(UTC).date()
        intro = f"`{command}`, {date}, {os.cpu_count()} cores, the clients and all servers on them:"
        return "\n".join([intro, "", *self._table(), "", *(line for it in sentences for line in wrap(it, 120)), ""])

    def _table(self) -> list[str]:
        ledger = self._ledger
        rows = [self._row(fault) for fault in [*self._recoveries, *(set(ledger.items) - set(self._recoveries))]]
        injected = sum(map(len, self._recoveries.values()))
        rows.append(["all", str(injected), *(str(counter.total()) for counter in self._counters()), "", ""])
        return ["| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *rows)]

    def text(self) -> str:
        ledger, load, lines = self._ledger, self._load, self._table()
        accepted = ledger.items.total()
        lines += ["", f"{self.seconds:.0f} s, {accepted / max(1, self.seconds):.0f} images/s, {len(ledger.jobs)} jobs:"]
        lines += [f"    {kind}: {count}" for kind, count in load.kinds.most_common()]
        lines += [
            f"images that the clients skipped: {load.skipped}; forgotten by the store: {ledger.forgotten.total()}"
        ]
        outcomes = load.outcomes
        lines += [
            f"available while Redis accepted writes: {100 * outcomes.availability:.2f} %: {dict(outcomes.counts)}"
        ]
        lines += [f"    {what}: {times}" for what, times in outcomes.failures.most_common()]
        lines += [f"while it did not: {dict(outcomes.counts_in_outage)}"]
        seconds, fault = outcomes.slowest
        lines += [
            f"slowest response to an image or a form: {seconds:.2f} s ({fault}); the clients' own lag: {load.lag:.2f} s"
        ]
        lines += [f"submits in doubt: {len(ledger.doubts)}; {dict(self._site.requests)}"]
        lines += [f"    {owner}: a single image ends after {times}" for owner, times in self._medians().items()]
        lines += [f"not injected: {fault}: {', '.join(whys)}" for fault, whys in self._not_injected.items()]
        problems = self.problems()
        lines += [f"WRONG: {what}" for what in problems]
        lines.append("THE PROMISE WAS BROKEN." if problems else "The promise held.")
        return "\n".join(lines)

    def _missed_webhooks(self) -> Iterator[str]:
        """Each job with a webhook was called, signed, with the state that it ended in."""
        if self._site.forged:
            yield f"{self._site.forged} calls of a webhook had no valid signature"
        wanted = {job.job_id: job for job in self._ledger.jobs.values() if job.webhook and job.first is not None}
        missed = [
            it for it in wanted.values() if it.job_id not in self._site.called and not self._ledger.is_excused(it)
        ]
        if missed:
            yield f"{len(missed)} of {len(wanted)} webhooks were not called, as that of job {missed[0].job_id}"
        for job_id, statuses in self._site.called.items():
            job = wanted.get(job_id)
            if job is not None and job.first is not None and set(statuses) != {job.first.job["status"]}:
                yield f"the webhook of job {job_id} was called with {statuses}, but it is {job.first.job['status']}"

    def _too_slow(self) -> Iterator[str]:
        for fault, found in self._recoveries.items():
            targets = TARGETS.get(fault, RECOVERY_TARGET)
            for name, seconds, target in zip(("p50", "max"), _times(found), targets, strict=True):
                if seconds > target:
                    yield f"{fault}: recovery {name} {seconds:.2f} s, not {target} s"
        outcomes = self._load.outcomes
        if 100 * outcomes.availability < AVAILABILITY_PERCENT:
            yield f"availability of {100 * outcomes.availability:.2f} %, not {AVAILABILITY_PERCENT} %"
        if outcomes.slowest[0] > ANSWER_SECONDS + self._load.lag:
            yield f"a response took {outcomes.slowest[0]:.2f} s, not {ANSWER_SECONDS} s"

    def _starving(self) -> Iterator[str]:
        medians = self._medians()
        least = min(medians.values(), default=0)
        for owner, seconds in medians.items():
            if seconds > STARVING_FACTOR * least + STARVING_SECONDS:
                yield f"{owner} starves: its single images end after {seconds:.2f} s, others' after {least:.2f} s"

    def _medians(self) -> dict[str, float]:
        return {owner: statistics.median(times) for owner, times in self._ledger.seconds_by_owner.items()}

    def _counters(self) -> tuple[Counter[str], ...]:
        ledger = self._ledger
        return ledger.items, ledger.lost, ledger.doubled, ledger.changed, ledger.wrong, ledger.cut_short

    def _row(self, fault: str) -> list[str]:
        found = self._recoveries.get(fault, [])
        times = [f"{seconds:.2f}" for seconds in _times(found)] if found else ["", ""]
        return [fault, str(len(found)), *(str(counter[fault]) for counter in self._counters()), *times]


def _times(seconds: list[float]) -> tuple[float, float]:
    """Median and maximum."""
    return statistics.median(seconds), max(seconds)
