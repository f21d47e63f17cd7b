"""The table of a run."""

import statistics
from collections import defaultdict

from chaos.ledger import Ledger
from chaos.load import Load

HEAD = ("fault", "injected", "accepted", "lost", "doubled", "changed", "wrong", "recovery p50 s", "max s")


class Report:
    def __init__(self, ledger: Ledger, load: Load) -> None:
        self._ledger = ledger
        self._load = load
        self._recoveries = defaultdict[str, list[float]](list)
        self._not_injected = defaultdict[str, list[str]](list)
        self.wrong = list[str]()
        """What is wrong with the store."""
        self.unlisted = 0
        """Jobs that the store accepted, and whose answer no client got."""
        self.seconds = 0.0
        self.ended_by_themselves = list[str]()

    def injected(self, fault: str, seconds: float) -> None:
        self._recoveries[fault].append(seconds)

    def not_injected(self, fault: str, why: str) -> None:
        self._not_injected[fault].append(why)

    @property
    def held(self) -> bool:
        """Whether the promise was kept."""
        ledger, load = self._ledger, self._load
        broken = sum(counter.total() for counter in (ledger.lost, ledger.doubled, ledger.changed, ledger.wrong))
        recovered = all(seconds < float("inf") for found in self._recoveries.values() for seconds in found)
        return (
            broken == 0
            and recovered
            and bool(ledger.items)
            and not self.wrong
            and not load.dishonest
            and self.unlisted <= load.in_doubt + load.probes
        )

    def text(self) -> str:
        ledger, load = self._ledger, self._load
        rows = [self._row(fault) for fault in [*self._recoveries, *(set(ledger.items) - set(self._recoveries))]]
        counters = (ledger.items, ledger.lost, ledger.doubled, ledger.changed, ledger.wrong)
        injected = sum(map(len, self._recoveries.values()))
        rows.append(["all", str(injected), *(str(counter.total()) for counter in counters), "", ""])
        lines = ["| " + " | ".join(row) + " |" for row in (HEAD, ["---"] * len(HEAD), *rows)]
        lines += [
            "",
            f"{self.seconds:.0f} s, {ledger.items.total() / max(1, self.seconds):.0f} images/s accepted, "
            f"{len(ledger.ids)} jobs; {load.held_back} images held back by the client",
            f"available while Redis took writes: {100 * load.availability:.2f} %; {dict(load.open)}",
            f"while it did not: {dict(load.shut)}",
            f"slowest answer to a submit: {load.slowest:.2f} s; "
            f"{self.unlisted} jobs whose answer was lost on its way, of {load.in_doubt} submits in doubt and {load.probes} probes",
            f"ended by themselves, and were started again: {', '.join(self.ended_by_themselves) or 'none'}",
        ]
        lines += [f"not injected: {fault}: {', '.join(whys)}" for fault, whys in self._not_injected.items()]
        lines += [f"WRONG: {what}" for what in (*self.wrong, *ledger.examples)]
        lines += [f"WRONG: {what} ({times} times)" for what, times in load.dishonest.items()]
        lines.append("The promise held." if self.held else "THE PROMISE WAS BROKEN.")
        return "\n".join(lines)

    def _row(self, fault: str) -> list[str]:
        ledger, found = self._ledger, self._recoveries.get(fault, [])
        counts = (ledger.items, ledger.lost, ledger.doubled, ledger.changed, ledger.wrong)
        times = [f"{statistics.median(found):.2f}", f"{max(found):.2f}"] if found else ["", ""]
        return [fault, str(len(found)), *(str(counter[fault]) for counter in counts), *times]
