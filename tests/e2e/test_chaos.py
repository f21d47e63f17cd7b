"""A short run of the fault suite: every fault at least once, under load."""

import os
import re
import subprocess
import sys
from pathlib import Path

from chaos.faults.table import FAULTS
from chaos.fleet import FAKETIME
from tests.support.processes import ROOT

NEEDS_ROOT, NEEDS_FAKETIME = "disk full", "clock stepped"


def test_whatever_breaks_every_accepted_image_gets_its_class_once(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "chaos",
        "--seconds",
        "90",
        "--rate",
        "300",
        "--seed",
        "4",
        "--logs",
        str(tmp_path),
    ]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    print(ran.stdout, ran.stderr)
    assert ran.returncode == 0, ran.stdout[-6000:] + ran.stderr[-3000:]

    injected = {name for name in FAULTS if re.search(rf"^\| {re.escape(name)} \| [1-9]", ran.stdout, re.MULTILINE)}
    impossible = {NEEDS_ROOT} if os.geteuid() != 0 else set()
    impossible |= set() if FAKETIME.exists() else {NEEDS_FAKETIME}
    assert injected == set(FAULTS) - impossible
