"""`make run MODEL=imagenet`: the package is built before anything starts."""

import os
import re
import subprocess
import sys
from pathlib import Path

import httpx

from tests.support.processes import ROOT, Process, free_port
from tests.support.waiting import wait_until

PHOTOS = Path(__file__).parents[2] / "photos"


def make_run(folder: Path, **environment: str) -> Process:
    """What `make run` executes, with folders of its own."""
    settings = {"DATA_DIR": str(folder / "data"), "MODELS_DIR": str(folder / "weights"), "PORT": str(free_port())}
    command = [sys.executable, "-m", "deploy.local"]
    return Process(command, folder / "log", settings | environment, own_group=True)


def test_a_model_that_is_not_there_is_built_and_served(tmp_path: Path) -> None:
    with make_run(tmp_path, MODEL="imagenet") as stack:

        def ready() -> bool:
            assert stack.running(), stack.output()
            return "Darkroom is ready" in stack.output()

        wait_until(ready, seconds=180, what="the stack")
        assert "Building" in stack.output()
        photo = (PHOTOS / "cat.jpg").read_bytes()
        headers = {"Content-Type": "image/jpeg", "Prefer": "wait=60"}
        url = f"http://127.0.0.1:{stack.environment['PORT']}/v1/jobs"
        job = httpx.post(url, content=photo, headers=headers, timeout=90).json()
        assert job["status"] == "completed", job
        assert job["model"] == "imagenet"
        assert job["result"]["class"] in ("a cat having a striped coat", "Egyptian Mau", "tabby cat")

        (command,) = re.findall(r"^.*darkroom classify .*$", (ROOT / "README.md").read_text(), re.MULTILINE)
        shell = ["bash", "-c", command.replace(".venv/bin", str(Path(sys.executable).parent))]  # expands file names
        environment = os.environ | {"DARKROOM_URL": f"http://127.0.0.1:{stack.environment['PORT']}"}
        listed = subprocess.run(
            shell, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60, check=True
        )
        assert all(name in listed.stdout for name in ("photos/cat.jpg", "espresso", "tripod"))
        assert job["result"]["class"] in listed.stdout


def test_if_it_cannot_be_built_nothing_starts(tmp_path: Path) -> None:
    with make_run(tmp_path, MODEL="imagenet", PIP_NO_INDEX="1") as stack:
        assert stack.wait(seconds=60) == 1
        assert "pip cannot get the wheels" in stack.output()
        assert "Traceback" not in stack.output()
        assert not (tmp_path / "data").exists()
