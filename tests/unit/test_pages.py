import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from docs import command_page, errors_page, openapi_document, pictures_page, python_page
from docs.settings_page import PAGE, page
from jobs.item_codes import ITEM_ADVICE, ITEM_DETAIL, ItemCode
from tests.support.processes import ROOT

PAGES = [path.relative_to(ROOT) for pattern in ("*.md", "client/*.md", "docs/**/*.md") for path in ROOT.glob(pattern)]
DECISIONS = [page for page in PAGES if page.name[:4].isdigit()]
CODE = ("api", "jobs", "worker", "training", "client", "deploy", "bench", "chaos", "tests")
NOT_OURS = {"mine.py"}  # a reader's own file


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m docs.settings_page"


@pytest.mark.parametrize("module", [errors_page, command_page, python_page], ids=lambda module: module.__name__)
def test_the_pages_of_the_reference_are_what_the_code_says(module: ModuleType) -> None:
    assert module.PAGE.read_text() == module.page(), f"run: .venv/bin/python -m {module.__name__}"


def test_each_code_has_a_cause_and_something_to_do() -> None:
    assert set(ITEM_ADVICE) == set(ITEM_DETAIL) == set(ItemCode)


def test_the_page_of_pictures_is_what_becomes_of_them() -> None:
    assert pictures_page.PAGE.read_text() == pictures_page.page(), "run: .venv/bin/python -m docs.pictures_page"


def test_the_openapi_document_is_what_the_routes_say() -> None:
    assert openapi_document.PATH.read_text() == openapi_document.document(), (
        "run: .venv/bin/python -m docs.openapi_document"
    )


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", (ROOT / page).read_text()):
        assert (ROOT / page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_files_that_the_pages_name_exist(page: Path) -> None:
    """A path is one from the root; a bare name is that of some file."""
    known = {path.name for folder in CODE for path in (ROOT / folder).rglob("*.*")}
    for name in re.findall(r"`([\w./-]+\.(?:py|lua))`", (ROOT / page).read_text()):
        assert (ROOT / name).exists() if "/" in name else name in known | NOT_OURS, name


def test_pages_that_the_code_names_exist() -> None:
    for folder in CODE:
        for path in (ROOT / folder).rglob("*.py"):
            for named in re.findall(r"\bdocs/[\w./-]+\.md", path.read_text()):
                assert (ROOT / named).exists(), f"{path}: {named}"


def test_the_index_of_decisions_has_each_page_with_its_title() -> None:
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    for decision in DECISIONS:
        title, *lines = (ROOT / decision).read_text().splitlines()
        number = int(decision.name[:4])
        assert title.startswith(f"# {number}. "), decision
        assert any(line.startswith("Status: ") for line in lines[:2]), decision
        (row,) = re.findall(rf"^\| \[{number}\]\((.+)\) \| (.+) \| .+ \|$", index, re.MULTILINE)
        link, indexed = row
        assert (ROOT / "docs" / "decisions" / link).resolve() == ROOT / decision
        assert f"# {number}. {indexed}" == title


def test_the_workers_main_process_does_without_torch_and_the_api_without_celery() -> None:
    """Each costs memory and seconds where it is not used; the API image has neither."""
    probe = "import sys, {0}; sys.exit(' '.join({1} & sys.modules.keys()))"
    for module, unwanted in (("worker.main", {"torch", "numpy", "PIL"}), ("api.main", {"celery", "kombu", "torch"})):
        done = subprocess.run(
            [sys.executable, "-c", probe.format(module, unwanted)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (1, "\n"), done.stderr


def test_the_performance_page_has_the_tables_that_the_bench_wrote() -> None:
    compared = (ROOT / "bench" / "results" / "bench.md").read_text().partition("| images a forward")[0]
    rows = [line for line in compared.splitlines() if line.startswith("|")]
    page = (ROOT / "docs" / "PERFORMANCE.md").read_text().splitlines()
    assert rows
    assert [row for row in rows if row not in page] == [], "copy the first two tables of bench/results/bench.md"
