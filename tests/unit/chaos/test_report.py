import time
from collections import Counter
from types import SimpleNamespace
from typing import Any, cast

import pytest

from chaos.clients.http import Outcomes
from chaos.ledger import Accepted, Ledger
from chaos.readings import Expected, Reading
from chaos.report import Report
from jobs.ids import new_id, to_text

COUNTS = {"pending": 0, "succeeded": 1, "failed": 0, "canceled": 0, "total": 1}
ITEM = {"index": 0, "name": None, "status": "succeeded", "class": "Bag", "confidence": 0.9}
JOB = {"status": "completed", "counts": COUNTS, "created_at": "1", "completed_at": "2", "result": ITEM}


class Run:
    """A run of one job, which ended after a fault."""

    def __init__(self) -> None:
        self.ledger = Ledger()
        self.site: Any = SimpleNamespace(called={}, requests=Counter(), forged=0)
        self.outcomes = Outcomes(lambda *_: False)
        load = SimpleNamespace(outcomes=self.outcomes, kinds=Counter(single=1), skipped=0, lag=0.0)
        self.report = Report(self.ledger, cast("Any", load), self.site, short=True)
        self.report.seconds = 10.0
        self.report.complete = True
        self.report.injected("Redis killed", 1.25)
        self.job = Accepted(to_text(new_id("alice", b"")), "alice", [Expected(None, "Bag", 0.9)], "", time.monotonic())
        self.ledger.accept(self.job)
        self.ledger.begin_fault("Redis killed")
        self.ledger.ended(self.job, Reading(JOB, [ITEM]))


@pytest.fixture
def run() -> Run:
    return Run()


def test_the_account_of_a_run_in_which_all_is_as_promised(run: Run) -> None:
    written = run.report.markdown("python -m chaos --seed 1")
    assert written.startswith("`python -m chaos --seed 1`, ")
    assert "| Redis killed | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 1.25 | 1.25 |\n" in written
    assert "10 s, 1 jobs, 0 images a second accepted.\n" in written
    assert written.endswith("The promise held.\n")
    assert max(len(line) for line in written.splitlines()) <= 120
    assert run.report.text().endswith("The promise held.")


def test_whatever_is_wrong_breaks_the_promise_in_both(run: Run) -> None:
    run.ledger.never_ended(run.job, "404")
    run.report.not_injected("disk full", "only root can mount a small disk")
    assert "WRONG: Redis killed: job" in run.report.text()
    assert run.report.text().endswith("THE PROMISE WAS BROKEN.")
    written = run.report.markdown("python -m chaos")
    assert "WRONG: Redis killed: job" in written
    assert "The promise held." not in written
    assert "Not injected: disk full (only root can mount a small disk).\n" in written


def test_a_webhook_that_was_not_called_is_wrong_only_at_the_end(run: Run) -> None:
    run.job.webhook = True
    run.report.complete = False
    assert run.report.problems() == []
    run.report.complete = True
    assert run.report.problems() == [f"1 of 1 webhooks were not called, as that of job {run.job.job_id}"]
    run.site.called[run.job.job_id] = ["completed"]
    assert run.report.problems() == []
    run.site.called[run.job.job_id] = ["canceled"]
    assert "was called with ['canceled']" in run.report.problems()[0]


def test_a_fault_without_recovery_and_a_refusal_without_retry_after_are_wrong_at_once(run: Run) -> None:
    run.report.injected("worker killed", float("inf"))
    run.outcomes.violations["429 without Retry-After"] += 1
    assert run.report.problems_so_far() == ["429 without Retry-After (1 times)", "worker killed: no recovery"]
