"""A short run of the fault suite: most faults at least once, under load."""

import os
import re
import subprocess
import sys
from pathlib import Path

from chaos.faults.table import FAULTS, NOT_BRIEF
from chaos.fleet import FAKETIME
from tests.support.processes import ROOT

NEED_ROOT = {"disk full", "disk of uploads full"}
NEED_FAKETIME = {"clock stepped"}


def run_chaos(*options: str, logs: Path) -> str:
    """What it prints, if the stack passed."""
    command = [sys.executable, "-m", "chaos", *options, "--logs", str(logs)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900, check=False)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]
    return ran.stdout


def test_whatever_breaks_every_accepted_image_gets_its_class_once(tmp_path: Path) -> None:
    printed = run_chaos("--seconds", "90", "--rate", "300", "--seed", "4", "--brief", logs=tmp_path)
    injected = {name for name in FAULTS if re.search(rf"^\| {re.escape(name)} \| [1-9]", printed, re.MULTILINE)}
    impossible = NEED_ROOT if os.geteuid() != 0 else set[str]()
    impossible = impossible | (set() if FAKETIME.exists() else NEED_FAKETIME)
    assert injected == set(FAULTS) - set(NOT_BRIEF) - impossible


def test_no_accepted_image_is_lost_while_s3_is_away(tmp_path: Path) -> None:
    printed = run_chaos(
        "--s3", "--only", "uploads away", "--times", "2", "--seconds", "90", "--rate", "200", logs=tmp_path
    )
    assert "| uploads away | 2 |" in printed
