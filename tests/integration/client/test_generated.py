"""Clients that other programs' generators make of docs/openapi.json: they compile, and classify a picture."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.client.conftest import DATA, KEY
from tests.support.processes import ROOT, Api

DOCUMENT = ROOT / "docs/openapi.json"
SOURCES = Path(__file__).parent / "generated"
BIN = Path(sys.executable).parent
PICTURE = DATA / "0018-bag.png"
NO_REGISTRY = ("ENOTFOUND", "EAI_AGAIN", "ECONNREFUSED", "ETIMEDOUT", "ENETUNREACH")


def run(*command: object, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [str(word) for word in command], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        timeout=240, check=False,
    )  # fmt: skip
    if any(code in done.stderr for code in NO_REGISTRY):
        pytest.skip(f"no npm registry: {done.stderr.splitlines()[0]}")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_typescript_client(api: Api, tmp_path: Path) -> None:
    for name in ("package.json", "classify.ts"):
        shutil.copy(SOURCES / name, tmp_path)
    run(BIN / "npm", "install", "--no-package-lock", "--no-audit", "--no-fund", cwd=tmp_path)
    modules = tmp_path / "node_modules"
    run(
        BIN / "node",
        modules / "openapi-typescript/bin/cli.js",
        DOCUMENT,
        "-o",
        "schema.ts",
        cwd=tmp_path,
    )
    tsc = (modules / "typescript/bin/tsc", "--strict", "--target", "es2023", "--module", "nodenext")
    run(BIN / "node", *tsc, "classify.ts", cwd=tmp_path)
    assert run(BIN / "node", "classify.js", api.url, KEY, PICTURE, cwd=tmp_path) == "Bag of 3\n"


def test_a_python_client(api: Api, tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("package_name_override: darkroom_generated\n")
    generate = ("generate", "--path", DOCUMENT, "--output-path", "client", "--config", "settings.yaml")
    tools = os.pathsep.join((str(BIN), os.environ["PATH"]))  # it formats its files by ruff
    run(BIN / "openapi-python-client", *generate, cwd=tmp_path, PATH=tools)
    classify = SOURCES / "classify.py"
    run(BIN / "mypy", "--strict", classify, cwd=tmp_path, MYPYPATH=str(tmp_path / "client"))
    found = run(sys.executable, classify, api.url, KEY, PICTURE, cwd=tmp_path, PYTHONPATH=str(tmp_path / "client"))
    assert found == "Bag of 3\n"
