"""Every code block that a reader of docs/ runs, against real servers."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import expect
from sybil.example import SybilFailure

from tests.integration.web.browser import CHROMIUM, chromium
from tests.support.doc_runner import PageRunner
from tests.support.processes import ROOT
from tests.support.stack import Stack

DOCS = ROOT / "docs"
OTHER_THAN_COMMANDS = ("docs/ARCHITECTURE.md", "docs/decisions")  # trees and drawings
PAGES = sorted(path for path in DOCS.rglob("*.md") if not str(path.relative_to(ROOT)).startswith(OTHER_THAN_COMMANDS))
_OF_THE_BOOK = {"needs Docker": 2, "needs a clone": 1, "needs an AWS account": 4}
WEB_PAGE = DOCS / "how-to/browser.md"
MARKED = {
    "tutorials/from-the-book.md": _OF_THE_BOOK,
    "tutorials/from-the-book.zh.md": _OF_THE_BOOK,
    "how-to/own-model.md": {"needs Docker": 1},
    "how-to/another-language.md": {"needs the npm registry": 1},
    "EC2.md": {"needs an AWS account": 3},
    "DEPLOYMENT.md": {"needs Docker": 5, "needs another host": 3, "needs an earlier release": 1},
    "BACKUP.md": {"needs Docker": 1, "needs the AWS command line": 1},
    "KUBERNETES.md": {"needs a cluster": 1},
    "KEYS.md": {"needs Docker": 1},
    "models/README.md": {"needs PyPI": 1},
    "RELIABILITY.md": {"takes minutes": 1},
}
"""Blocks that are not run here, by what they need; `MARKERS` in tests/support/doc_blocks.py says where they are."""


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("stack")
    with Stack(folder, MODEL="fmnist-cnn", DEFAULT_MODEL="fmnist-cnn") as stack:
        api = stack.api()
        stack.worker(children=1)
        yield api.url


@pytest.mark.parametrize("page", [it for it in PAGES if it != WEB_PAGE], ids=lambda page: str(page.relative_to(DOCS)))
def test_the_blocks_of_the_page_work(page: Path, url: str, tmp_path: Path) -> None:
    runner = PageRunner(tmp_path, url)
    runner.run(page)
    assert Counter(runner.marked) == MARKED.get(str(page.relative_to(DOCS)), {})


def test_the_web_page_classifies_in_a_browser(url: str, tmp_path: Path) -> None:
    runner = PageRunner(tmp_path, url)

    def visit() -> None:
        if not Path(CHROMIUM).exists():
            pytest.skip("Debian's package chromium is not installed")
        with chromium() as browser:
            page = browser.new_page()
            page.goto(f"http://127.0.0.1:{runner.port('9003')}/page.html")
            page.locator("input").set_input_files([ROOT / "tests/data/0018-bag.png", ROOT / "LICENSE"])
            expect(page.locator("li")).to_have_text(["0018-bag.png: Bag", re.compile("LICENSE: Unsupported type")])

    runner.run(WEB_PAGE, visit)
    assert runner.marked == []


def test_each_page_with_marked_blocks_exists() -> None:
    assert {str(page.relative_to(DOCS)) for page in PAGES} >= MARKED.keys()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("```ruby\nputs 1\n```\n", "a block of ruby has no runner and no marker"),
        ("```\nno language\n```\n", "a block of no language has no runner and no marker"),
        ('```sh title="needs luck"\nfalse\n```\n', "needs luck is neither a file nor one of"),
        ("```sh skip\nfalse\n```\n", "cannot read sh skip"),
        ("```text\n1\n```\n", "an output without a command before it"),
        ("```sh\nfalse\n```\n", "exit status 1"),
        ("```sh\nfalse\n", "exit status 1"),
        ("```sh\necho 1\n```\n\n```text\n2\n```\n", "the page shows"),
        ("```sh\ncurl http://127.0.0.1:8000/v1/jobs/1\n```\n", "the server refused the command before"),
        ('```sh\necho \'{"a": [1, 2]}\'\n```\n\n```json\n{"a": [1, "…"], "b": 2}\n```\n', "{'b'}"),
        ("```python\nprint(1)\n```\n\n```python\n1 / 0\n```\n", "ZeroDivisionError"),
        ("```javascript\nlost();\n```\n", "lost is not defined"),
    ],
)
def test_a_block_that_does_not_work_fails(text: str, reason: str, url: str, tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(text)
    (tmp_path / "folder").mkdir()
    with pytest.raises((AssertionError, SybilFailure), match=reason):
        PageRunner(tmp_path / "folder", url).run(page)


def test_the_chinese_tutorial_has_the_commands_of_the_english_one() -> None:
    english, chinese = (_blocks(DOCS / "tutorials" / f"from-the-book{language}.md") for language in ("", ".zh"))
    assert english == chinese


def _blocks(page: Path) -> list[str]:
    """With their fences."""
    parts = page.read_text().split("```")
    return parts[1::2]
