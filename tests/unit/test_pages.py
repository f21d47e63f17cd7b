import re

from docs.settings_page import PAGE, page
from jobs.lua import NAMES
from tests.support.processes import ROOT


def test_the_settings_page_is_what_the_settings_say() -> None:
    assert PAGE.read_text() == page(), "run: .venv/bin/python -m docs.settings_page"


def test_links_of_the_readme_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text()):
        assert (ROOT / target).exists(), target


def test_the_scripts_stay_few_and_short() -> None:
    assert len(NAMES) <= 8
    lines = sum(len(path.read_text().splitlines()) for path in (ROOT / "jobs" / "scripts").glob("*.lua"))
    assert lines <= 440
