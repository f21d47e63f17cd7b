"""`make docs`: the site of all pages, and how it fails at a link or an anchor that leads nowhere."""

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import ROOT

_COLOUR = re.compile(r"\x1b\[[\d;]*m")


def build(folder: Path) -> "subprocess.CompletedProcess[str]":
    """As the Makefile does, in a copy."""
    found = re.search(r"^docs:.*\n\t\$\(BIN\)/zensical (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert found
    command = [str(Path(sys.executable).with_name("zensical")), *shlex.split(found[1])]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copy(ROOT / "zensical.toml", tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_each_page_is_in_the_site(copy: Path) -> None:
    done = build(copy)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (copy / "docs").rglob("*.md"):
        name = page.relative_to(copy / "docs").with_suffix("")
        at = name.parent if name.name in ("index", "README") else name
        assert (copy / "site" / at / "index.html").exists(), name


@pytest.mark.parametrize("target", ["absent.md", "folder.md#absent", "../reference/http.md#absent", "#absent"])
def test_a_link_that_leads_nowhere_fails(copy: Path, target: str) -> None:
    with (copy / "docs/how-to/folder.md").open("a") as page:
        page.write(f"\n[nowhere]({target})\n")
    done = build(copy)
    assert done.returncode != 0
    told = _COLOUR.sub("", done.stderr)
    assert "how-to/folder.md:" in told
    assert target in told


def test_each_page_is_in_the_navigation_or_an_index() -> None:
    """Decisions are in the index of decisions."""
    named = (ROOT / "zensical.toml").read_text() + (ROOT / "docs/decisions/README.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = str(page.relative_to(ROOT / "docs"))
        assert name.removeprefix("decisions/") in named, f"{name} is neither in zensical.toml nor a decision"
