"""Processes that count into one folder, however they end."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from jobs.metrics import processes
from jobs.metrics.process_metrics import ITEMS, LABEL_SETS_MAX
from tests.support.processes import ROOT

COUNTING = """
from jobs.metrics.process_metrics import BATCH_ITEMS, ITEMS
from jobs.metrics.processes import join_metrics

join_metrics("worker")
print("up", flush=True)
number = 0
while True:
    number += 1
    ITEMS.add("m", f"code{number % 200}")
    BATCH_ITEMS.measured(number % 64, f"model{number % 50}")
"""
MANY_LABELS = """
from jobs.metrics.process_metrics import ITEMS, LABEL_SETS_MAX
from jobs.metrics.processes import join_metrics

join_metrics("worker")
for number in range(2 * LABEL_SETS_MAX):
    ITEMS.add(f"model{number}", "succeeded")
"""
ROUNDS = 20  # of two kills
SIDE_BY_SIDE = 2


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with processes.metrics_folder() as folder:
        yield folder


def totals(folder: Path) -> dict[str, float]:
    """Each sample of all processes, by its name and labels."""
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(folder))
    return {
        f"{sample.name}{sorted(sample.labels.items())}": sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def start(code: str, *, joins: bool = True) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not joins:
        del environment[processes.FOLDER_VARIABLE]
    return subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment)


def test_children_that_are_killed_while_they_count_leave_no_files_and_take_nothing_back(folder: Path) -> None:
    before = dict[str, float]()
    for _ in range(ROUNDS):
        children = [start(COUNTING) for _ in range(SIDE_BY_SIDE)]
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "up\n"
        during = totals(folder)  # while they write
        for child in children:
            child.send_signal(signal.SIGKILL)
            child.communicate()
        now = totals(folder)
        assert {name for name, value in before.items() if during[name] < value or now[name] < during[name]} == set()
        before = now
    assert len(list(folder.glob("*.db"))) == 2 * SIDE_BY_SIDE, "counters and histograms of each slot"
    assert before["darkroom_child_restarts_total[]"] == SIDE_BY_SIDE * (ROUNDS - 1)


def test_a_metric_has_a_bounded_number_of_time_series(folder: Path) -> None:
    child = start(MANY_LABELS)
    assert child.communicate(timeout=60) == ("", None)
    assert child.returncode == 0
    found = {name: value for name, value in totals(folder).items() if name.startswith(f"{ITEMS.name}_total")}
    assert len(found) == LABEL_SETS_MAX + 1
    assert found["darkroom_items_total[('model', 'other'), ('result', 'other')]"] == LABEL_SETS_MAX


def test_a_process_of_a_service_without_metrics_counts_nothing(folder: Path) -> None:
    child = start(MANY_LABELS, joins=False)
    child.communicate(timeout=60)
    assert child.returncode == 0
    assert [path.name for path in folder.iterdir()] == ["owner.lock"]


def test_what_a_killed_service_has_left_is_removed_at_the_next_start(tmp_path: Path, folder: Path) -> None:
    code = f"""
import tempfile
tempfile.tempdir = {str(tmp_path)!r}
from jobs.metrics.processes import join_metrics, metrics_folder
with metrics_folder():
    join_metrics("worker")
    print("up", flush=True)
    input()
"""
    services = [
        subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        for _ in range(2)
    ]
    for service in services:
        assert service.stdout is not None
        assert service.stdout.readline() == "up\n"
    assert len(list(tmp_path.iterdir())) == 3
    services[0].kill()
    services[0].communicate()
    with processes.metrics_folder():
        assert len(list(tmp_path.iterdir())) == 3, "one was removed, one is that of the new service"
    os.environ[processes.FOLDER_VARIABLE] = str(folder)  # as the fixture set it
    services[1].communicate("\n", timeout=30)
    assert list(tmp_path.iterdir()) == [folder]
