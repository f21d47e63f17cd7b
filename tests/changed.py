"""Run the tests of the parts that a change touches: the inner loop, in place of the whole `make test`.

    make test-changed                          what changed since the branch left main, uncommitted files included
    make test-changed PARTS="api/uploads"      or what is named: files or folders

The tests of `worker/classify/claim_loop.py` are the files in `tests/unit/worker/classify/` and
`tests/integration/worker/classify/`, without subfolders; a folder without tests hands over to its parent. Files that
start a whole stack take a minute each: they run only if they changed themselves or have the changed module's name.
"""

import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
SUITES = ("tests/unit", "tests/integration")
PACKAGES = ("api", "jobs", "worker", "training", "client", "deploy", "docs")
PAGES_TEST = "tests/unit/test_pages.py"
PROCESSES_MAX = 4
USERS_MAX = 8
"""Test files of one helper in `tests/support/`; with more users, its change is one for `make test`."""
_STACK = re.compile(r"\btests\.support\.stack\b|\bstack: Stack\b")


class Choice(NamedTuple):
    run: list[str]
    """Test files, as paths from the root."""
    left: list[str]
    """What is left to `make test`, each with the reason."""


def choose(changed: Iterable[str], root: Path = ROOT) -> Choice:
    """The tests of these files or folders, given as paths from the root. Deleted files count as well."""
    run, left = set[str](), set[str]()
    for path in map(Path, changed):
        found = sorted(_tests_of(path, root))
        if not found:
            left.add(f"{path}: no tests of its own")
        elif path.parts[:2] == ("tests", "support") and len(found) > USERS_MAX:
            left.add(f"{path}: {len(found)} test files use it")
        else:
            for test in found:
                own = test == path or test.stem == f"test_{path.stem}"
                if own or not _STACK.search((root / test).read_text()):
                    run.add(str(test))
                else:
                    left.add(f"{test}: starts a whole stack")
    return Choice(sorted(run), sorted(line for line in left if line.partition(":")[0] not in run))


def _tests_of(path: Path, root: Path) -> Iterator[Path]:
    if path.suffix == ".md" or path.name in ("settings.py", "pyproject.toml") or path.parts[0] == "docs":
        yield Path(PAGES_TEST)
    if path.parts[0] in PACKAGES:
        yield from _mirrored(path, root)
    elif path.parts[:2] == ("tests", "support"):
        yield from _users(f"tests.support.{path.stem}", root)
    elif path.parts[:2] in {tuple(suite.split("/")) for suite in SUITES}:
        if path.name == "conftest.py" or not path.suffix:
            yield from _test_files(path.parent if path.suffix else path, root)
        elif path.name.startswith("test_") and (root / path).exists():
            yield path


def _mirrored(path: Path, root: Path) -> Iterator[Path]:
    """The test files of the nearest folder that has some; on top of the suites, only those with the module's name."""
    for folder in (path, *path.parents):
        on_top = folder == Path()
        found = [test for suite in SUITES for test in _test_files(Path(suite) / folder, root)]
        if on_top:
            found = [test for test in found if test.stem == f"test_{path.stem}"]
        if found:
            yield from found
            return


def _test_files(folder: Path, root: Path) -> list[Path]:
    return [found.relative_to(root) for found in (root / folder).glob("test_*.py")]


def _users(module: str, root: Path) -> Iterator[Path]:
    imported = re.compile(rf"\b{re.escape(module)}\b")
    for suite in SUITES:
        for found in (root / suite).rglob("test_*.py"):
            if imported.search(found.read_text()):
                yield found.relative_to(root)


def changed_files() -> list[str]:
    """Files that differ from where the branch left main; on main itself, from the last commit."""
    base = "HEAD"
    for main in ("main", "origin/main"):
        found = subprocess.run(
            ["git", "merge-base", "HEAD", main], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if found.returncode == 0:
            base = found.stdout.strip()
            break
    names = _git("diff", "--name-only", "-z", "--no-renames", base)
    names += _git("ls-files", "--others", "--exclude-standard", "-z")
    return sorted(set(filter(None, names.split("\0"))))


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout


def main(parts: list[str]) -> int:
    choice = choose(parts or changed_files())
    for line in choice.left:
        print(f"left to make test: {line}")
    if not choice.run:
        print("nothing to run")
        return 0
    print("\n".join(choice.run), flush=True)
    side_by_side = ["--numprocesses", "auto", "--maxprocesses", str(PROCESSES_MAX), "--dist", "loadfile"]
    command = [sys.executable, "-m", "pytest", *(side_by_side if len(choice.run) > 1 else []), *choice.run]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
