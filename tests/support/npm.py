"""Programs of npm packages, for tests of what is made of docs/openapi.json."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

BIN = Path(sys.executable).parent
DOCUMENT = ROOT / "docs/openapi.json"
_NO_REGISTRY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")


def run(*command: object, cwd: Path, **environment: str) -> str:
    """The output of a command that succeeds."""
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    if any(code in done.stderr for code in _NO_REGISTRY):
        pytest.skip(f"no npm registry: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def install(folder: Path) -> Path:
    """Install what package.json there names. Returns the folder of the modules."""
    run(BIN / "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=folder)
    return folder / "node_modules"


def make_types(folder: Path, modules: Path, output: str) -> None:
    """The types of docs/openapi.json, by openapi-typescript."""
    run(BIN / "node", modules / "openapi-typescript/bin/cli.js", DOCUMENT, "--output", output, cwd=folder)


def check_types(folder: Path, modules: Path, *options: str) -> None:
    strict = ("--strict", "--target", "es2023", "--module", "nodenext")
    run(BIN / "node", modules / "typescript/bin/tsc", *strict, *options, cwd=folder)
