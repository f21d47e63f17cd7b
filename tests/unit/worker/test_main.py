import os
import subprocess
import sys

import pytest

from tests.support.processes import ROOT

OPENED = """
import sys
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
import {module}
print(*(path for path in opened if "weights/" in path or path.endswith("manifest.json")))
"""


@pytest.mark.parametrize("module", ["worker.main", "worker.outbound.main"])
def test_an_import_of_an_entry_point_reads_no_settings_and_no_packages(module: str) -> None:
    wrong = {"REDIS_URL": "http://nowhere", "REDIS_MAXMEMORY_BYTES": "many", "MODELS_DIR": "weights"}
    done = subprocess.run(
        [sys.executable, "-c", OPENED.format(module=module)],
        cwd=ROOT,
        env=os.environ | wrong,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "\n", "")
