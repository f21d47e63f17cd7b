"""Schemathesis calls every operation of the OpenAPI document with valid and invalid input, all checks on."""

import subprocess
import sys
from pathlib import Path

from tests.support.processes import ROOT, Api, Valkey

EXAMPLES = 30
KEY = "a-key-of-this-test-only"
SETTINGS = {
    "API_KEYS": f'{{"alice": "{KEY}"}}',
    "WAIT_SECONDS_MAX": "0.1",
    "PREDICT_WAIT_SECONDS": "0.05",  # no worker runs
    "HELD_STREAM_SECONDS_MAX": "0.2",
    "ROOM_WAIT_SECONDS_MAX": "0.1",
    "UPLOAD_BYTES_MAX": str(16 << 20),
}


def test_every_answer_is_one_that_the_document_describes(valkey: Valkey, tmp_path: Path) -> None:
    options = {
        "--config-file": str(ROOT / "tests" / "schemathesis.toml"),
        "run": "",
        "--checks": "all",
        "--max-examples": str(EXAMPLES),
        "--seed": "1",
        "--header": f"Authorization: Bearer {KEY}",
        "--request-timeout": "10",
        "--generation-database": "none",
    }
    arguments = [part for option in options.items() for part in option if part]
    with Api(valkey.url, tmp_path / "api.log", **SETTINGS) as api:
        command = [str(Path(sys.executable).with_name("schemathesis")), *arguments, "--no-color"]
        ran = subprocess.run(
            [*command, f"{api.url}/openapi.json"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
    assert ran.returncode == 0, ran.stdout[-20_000:] + ran.stderr[-2_000:]
    assert "Traceback" not in api.output()
