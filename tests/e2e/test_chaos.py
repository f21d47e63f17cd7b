"""A short run of the fault suite: most faults at least once, under load."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.faults.table import FAULTS, NOT_BRIEF
from chaos.fleet import FAKETIME
from tests.support.processes import Process

NEED_ROOT = {"disk full", "disk of uploads full"}
RUN_SECONDS_MAX, STOP_SECONDS_MAX = 900, 120
NEED_FAKETIME = {"clock stepped"}


def run_chaos(*options: str, folder: Path, module: str = "chaos") -> str:
    """What it prints, if the stack passed."""
    log = folder / "chaos.log"
    with Process([sys.executable, "-m", module, *options, "--logs", str(folder)], log) as chaos:
        try:
            status = chaos.wait(RUN_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            chaos.signal(signal.SIGTERM)  # it ends the processes of its stack, which takes longer than a service
            chaos.wait(STOP_SECONDS_MAX)
            raise
    print(chaos.output())
    assert status == 0, chaos.output()[-6000:]
    return chaos.output()


def test_whatever_breaks_every_accepted_image_gets_its_class_once(tmp_path: Path) -> None:
    printed = run_chaos("--seconds", "90", "--rate", "150", "--seed", "4", "--brief", folder=tmp_path)
    injected = {name for name in FAULTS if re.search(rf"^\| {re.escape(name)} \| [1-9]", printed, re.MULTILINE)}
    impossible = NEED_ROOT if os.geteuid() != 0 else set[str]()
    impossible = impossible | (set() if FAKETIME.exists() else NEED_FAKETIME)
    assert injected == set(FAULTS) - set(NOT_BRIEF) - impossible


def test_no_accepted_image_is_lost_while_s3_is_away(tmp_path: Path) -> None:
    printed = run_chaos(
        "--s3", "--only", "uploads away", "--times", "2", "--seconds", "90", "--rate", "150", folder=tmp_path
    )
    assert "| uploads away | 2 |" in printed


@pytest.mark.deploy
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can make network namespaces")
@pytest.mark.skipif(shutil.which("redis-check-rdb") is None, reason="Debian's redis-tools are not installed")
def test_no_accepted_image_is_lost_while_the_workers_host_is_cut_off(tmp_path: Path) -> None:
    printed = run_chaos("--seconds", "20", "--cuts", "8", "--rate", "100", folder=tmp_path, module="chaos.hosts")
    assert "| link cut for 8 s | 1 |" in printed
    accepted, ended = map(int, re.findall(r"^\| 8 \| (\d+) \| (\d+) \|", printed, re.MULTILINE)[0])
    assert ended < accepted / 5, "the link was cut: what ends is fetched or canceled on the first host"
