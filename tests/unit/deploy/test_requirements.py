"""Everything but torch is installed by its hashes, and what is pinned names no address."""

import re
from pathlib import Path

import pytest

from tests.support.processes import ROOT

FILES = sorted((ROOT / "requirements").glob("*.txt"))
HASHED = [path for path in FILES if path.name != "torch.txt"]
INSTALLERS = [ROOT / name for name in ("Makefile", "Dockerfile.api", "Dockerfile.worker")]
PIN = re.compile(r"[\w.-]+(\[[\w,-]+\])?==[\w.]+( ; [^\\]+)?( \\\n    --hash=sha256:[0-9a-f]{64})+\n")


@pytest.mark.parametrize("path", HASHED, ids=lambda path: path.name)
def test_each_requirement_has_a_version_and_hashes_and_nothing_else(path: Path) -> None:
    assert re.sub(PIN, "", path.read_text()) == ""


def test_torch_alone_has_none_and_is_the_one_of_the_project() -> None:
    (pin,) = (ROOT / "requirements/torch.txt").read_text().splitlines()
    assert re.fullmatch(r"torch==[\d.]+", pin)
    assert f'"{pin}"' in (ROOT / "pyproject.toml").read_text()
    assert [path.name for path in HASHED if re.search("^torch==", path.read_text(), re.MULTILINE)] == []


@pytest.mark.parametrize("path", INSTALLERS, ids=lambda path: path.name)
def test_requirements_are_installed_by_their_hashes(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "pip install" in line and "--requirement" in line]
    assert lines
    unchecked = [line for line in lines if "--require-hashes" not in line]
    assert all(re.search("--requirement requirements/torch.txt", line) for line in unchecked), unchecked
