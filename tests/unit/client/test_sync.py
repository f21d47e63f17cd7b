"""The blocking client is made from the asynchronous one, and both are cheap to import."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from client import make_sync
from tests.support.processes import ROOT

SOURCES = sorted((make_sync.FOLDER / "_async").glob("*.py"))


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.name)
def test_the_blocking_client_is_that_which_is_made(source: Path) -> None:
    made = make_sync.FOLDER / "_sync" / source.name
    assert made.read_text() == make_sync.to_sync(source.read_text()), "run: .venv/bin/python client/make_sync.py"
    assert "await" not in made.read_text()


def test_no_other_file_is_beside_them() -> None:
    assert [path.name for path in sorted((make_sync.FOLDER / "_sync").glob("*.py"))] == [it.name for it in SOURCES]


def test_the_import_loads_no_more_than_httpx2() -> None:
    script = "import sys, json, darkroom; print(json.dumps([name.partition('.')[0] for name in sys.modules]))"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT / "client", capture_output=True, text=True, check=True
    )
    loaded = set(json.loads(done.stdout))
    assert {"darkroom", "httpx2"} <= loaded
    assert not loaded & {"click", "rich", "numpy", "PIL", "httpx", "pydantic", "asyncio.subprocess"}
