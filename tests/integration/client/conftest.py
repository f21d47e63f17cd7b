import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from darkroom import Darkroom

from tests.support.outbound import SECRET
from tests.support.processes import ROOT, Api
from tests.support.stack import Stack

DATA = ROOT / "tests" / "data"
KEY = "alice-key-0123456789"

WEBHOOK_SECRETS = f'{{"alice": "{SECRET}"}}'

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    settings = {"API_KEYS": f'{{"alice": "{KEY}"}}', "WEBHOOK_SECRETS": WEBHOOK_SECRETS}
    with Stack(tmp_path_factory.mktemp("stack"), **settings) as stack:
        stack.worker()
        yield stack


@pytest.fixture(scope="module")
def api(server: Stack) -> Api:
    return server.api()


@pytest.fixture
def darkroom(api: Api) -> Iterator[Darkroom]:
    with Darkroom(api.url, KEY) as darkroom:
        yield darkroom


def command_line(*arguments: object) -> list[str]:
    return [str(Path(sys.executable).with_name("darkroom")), *map(str, arguments)]


def command_environment(folder: Path, url: str, **variables: str) -> dict[str, str]:
    """Of a command whose settings and journals are in this folder."""
    own = {"XDG_STATE_HOME": str(folder), "XDG_CONFIG_HOME": str(folder), "DARKROOM_URL": url, "DARKROOM_API_KEY": KEY}
    return {**os.environ, **own, **variables}


@pytest.fixture
def command(api: Api, tmp_path: Path) -> Command:
    """Runs the command `darkroom` in the repository's root."""

    def run(*arguments: object, text: bool = True, cwd: Path = ROOT, **variables: str) -> Any:
        environment = command_environment(tmp_path / "state", variables.pop("DARKROOM_URL", api.url), **variables)
        return subprocess.run(
            command_line(*arguments), cwd=cwd, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
            text=text, errors="surrogateescape" if text else None, timeout=60, check=False,
        )  # fmt: skip

    return run
