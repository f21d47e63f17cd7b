"""Clients that other programs' generators make of docs/openapi.json: they compile, and classify a picture."""

import os
import shutil
import sys
from pathlib import Path

from tests.integration.client.conftest import DATA, KEY
from tests.support.npm import BIN, DOCUMENT, check_types, install, make_types, run
from tests.support.processes import Api

SOURCES = Path(__file__).parent / "generated"
PICTURE = DATA / "0018-bag.png"


def test_a_typescript_client(api: Api, tmp_path: Path) -> None:
    for name in ("package.json", "classify.ts"):
        shutil.copy(SOURCES / name, tmp_path)
    modules = install(tmp_path)
    make_types(tmp_path, modules, "schema.ts")
    check_types(tmp_path, modules, "classify.ts")
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
