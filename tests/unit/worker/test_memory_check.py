import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobs.errors import SettingsError
from tests.support.processes import ROOT
from worker.inference.allocator import MIB
from worker.memory_check import check_memory
from worker.settings import WorkerSettings

MODELS = ("fmnist-mlp@1",)
COMPOSE_BYTES = 2048 * MIB
_START = """
import sys
from pathlib import Path
from worker.inference import allocator
allocator._LIMITS = (Path(sys.argv[1]),)
from worker.main import run
run()
"""


def settings(**changed: Any) -> WorkerSettings:
    return WorkerSettings(
        redis_url="redis://127.0.0.1:1/0", models_dir=ROOT / "weights", **({"worker_children": 2} | changed)
    )


@pytest.fixture
def limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file of the kernel that has the container's limit."""
    file = tmp_path / "memory.max"
    monkeypatch.setattr("worker.inference.allocator._LIMITS", (file,))
    return file


def test_compose_s_limit_is_enough_for_the_defaults(limit: Path) -> None:
    limit.write_text(str(COMPOSE_BYTES))
    check_memory(settings(), MODELS)


@pytest.mark.parametrize("changed", [{"worker_children": 3}, {"item_pixels_max": 60_000_000}])
def test_more_processes_or_larger_images_need_more(limit: Path, changed: dict[str, int]) -> None:
    limit.write_text(str(COMPOSE_BYTES))
    with pytest.raises(SettingsError, match=r"raise its limit .* or lower WORKER_CHILDREN, ITEM_PIXELS_MAX"):
        check_memory(settings(**changed), MODELS)
    check_memory(settings(**changed, child_memory_bytes_max=600 * MIB), MODELS)


@pytest.mark.parametrize("text", ["max\n", None])
def test_without_a_limit_nothing_is_checked(limit: Path, text: str | None) -> None:
    if text is not None:
        limit.write_text(text)
    check_memory(settings(worker_children=256), MODELS)


def test_a_worker_does_not_start_and_says_why_in_one_line(limit: Path) -> None:
    limit.write_text(str(1024 * MIB))
    environment = os.environ | {"REDIS_URL": "redis://127.0.0.1:1/0", "WORKER_CHILDREN": "2"}
    done = subprocess.run(
        [sys.executable, "-c", _START, str(limit)],
        check=False,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("darkroom worker: 2 processes that decode images of 50,000,000 pixels may take 1,9")
    assert done.stderr.count("\n") == 1
