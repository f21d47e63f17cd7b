import re
import subprocess
import sys

from docs.settings_page import PAGE, page
from tests.support.processes import ROOT


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m docs.settings_page"


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


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


def test_the_readme_has_the_tables_that_the_bench_wrote() -> None:
    compared = (ROOT / "bench" / "results" / "bench.md").read_text().partition("| images a forward")[0]
    rows = [line for line in compared.splitlines() if line.startswith("|")]
    readme = (ROOT / "README.md").read_text().splitlines()
    assert rows
    assert [row for row in rows if row not in readme] == [], "copy the first two tables of bench/results/bench.md"
