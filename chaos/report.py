"""The table of a run, and whether the stack passed."""

import statistics
from collections import defaultdict
from collections.abc import Iterator

from chaos.ledger import Ledger
from chaos.load import Load

# Seconds of recovery: median and maximum.
TARGETS = {"worker's child killed": (1, 15), "worker killed": (6, 15)}
AVAILABILITY_PERCENT, ANSWER_SECONDS = 99, 5
HEAD = ("fault", "injected", "accepted", "lost", "doubled", "changed", "wrong", "recovery p50 s", "max s")


class Report:
    def __init__(self, ledger: Ledger, load: Load) -> None:
        self._ledger = ledger
        self._load = load
        self._recoveries = defaultdict[str, list[float]](list)
        self._not_injected = defaultdict[str, list[str]](list)
        self.wrong = list[str]()
        """Errors in the store."""
        self.unlisted = 0
        """Jobs that the store accepted and of which no client got a response."""
        self.seconds = 0.0
        self.unexpected_exits = list[str]()

    def injected(self, fault: str, seconds: float) -> None:
        self._recoveries[fault].append(seconds)

    def not_injected(self, fault: str, why: str) -> None:
        self._not_injected[fault].append(why)

    @property
    def passed(self) -> bool:
        """Whether no accepted image was lost, doubled, changed or wrong, and every fault was recovered from."""
        ledger, load = self._ledger, self._load
        broken = sum(counter.total() for counter in (ledger.lost, ledger.doubled, ledger.changed, ledger.wrong))
        recovered = all(seconds < float("inf") for found in self._recoveries.values() for seconds in found)
        return (
            broken == 0
            and recovered
            and bool(ledger.items)
            and not self.wrong
            and not load.violations
            and self.unlisted <= load.in_doubt + load.probes
        )

    def text(self) -> str:
        ledger, load = self._ledger, self._load
        rows = [self._row(fault) for fault in [*self._recoveries, *(set(ledger.items) - set(self._recoveries))]]
        counters = (ledger.items, ledger.lost, ledger.doubled, ledger.changed, ledger.wrong)
        injected = sum(map(len, self._recoveries.values()))
        rows.append(["all", str(injected), *(str(counter.total()) for counter in counters), "", ""])
        lines = ["| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *rows)]
        accepted = ledger.items.total()
        lines += ["", f"{self.seconds:.0f} s, {accepted / max(1, self.seconds):.0f} images/s, {len(ledger.ids)} jobs"]
        lines += [f"images that the client skipped: {load.skipped}"]
        lines += [f"available while Redis accepted writes: {100 * load.availability:.2f} %: {dict(load.outcomes)}"]
        lines += [f"    {what}: {times}" for what, times in load.failures.most_common()]
        lines += [f"while it did not: {dict(load.outcomes_in_outage)}"]
        seconds, fault = load.slowest
        lines += [
            f"slowest response to an image or a form: {seconds:.2f} s ({fault}); the client's own lag: {load.lag:.2f} s"
        ]
        lines += [
            f"jobs outside the ledger: {self.unlisted}, after {load.in_doubt} submits in doubt and {load.probes} probes"
        ]
        lines += [f"unexpected exits: {', '.join(self.unexpected_exits) or 'none'}"]
        lines += [f"not injected: {fault}: {', '.join(whys)}" for fault, whys in self._not_injected.items()]
        lines += [f"WRONG: {what}" for what in (*self.wrong, *ledger.examples)]
        lines += [f"not reached: {what}" for what in self._not_reached()]
        lines += [f"WRONG: {what} ({times} times)" for what, times in load.violations.items()]
        lines.append("The promise held." if self.passed else "THE PROMISE WAS BROKEN.")
        return "\n".join(lines)

    def _not_reached(self) -> Iterator[str]:
        for fault, targets in TARGETS.items():
            found = self._recoveries.get(fault)
            for name, seconds, target in zip(("p50", "max"), _times(found), targets, strict=True) if found else ():
                if seconds > target:
                    yield f"{fault}: {name} {seconds:.2f} s, not {target} s"
        if 100 * self._load.availability < AVAILABILITY_PERCENT:
            yield f"availability of {AVAILABILITY_PERCENT} %"
        if self._load.slowest[0] > ANSWER_SECONDS:
            yield f"a response within {ANSWER_SECONDS} s"

    def _row(self, fault: str) -> list[str]:
        ledger, found = self._ledger, self._recoveries.get(fault, [])
        counts = (ledger.items, ledger.lost, ledger.doubled, ledger.changed, ledger.wrong)
        times = [f"{seconds:.2f}" for seconds in _times(found)] if found else ["", ""]
        return [fault, str(len(found)), *(str(counter[fault]) for counter in counts), *times]


def _times(seconds: list[float]) -> tuple[float, float]:
    """Median and maximum."""
    return statistics.median(seconds), max(seconds)
