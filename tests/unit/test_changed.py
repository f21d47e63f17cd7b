from pathlib import Path

import pytest

from tests.changed import PAGES_TEST, choose

FILES = {
    "tests/unit/test_pages.py": "",
    "tests/unit/api/test_drain_rate.py": "",
    "tests/unit/api/uploads/test_tar.py": "",
    "tests/integration/test_client.py": "stack: Stack",
    "tests/integration/api/test_jobs.py": "from tests.support.store import Store",
    "tests/integration/api/uploads/test_bad_input.py": "",
    "tests/integration/worker/test_reaper.py": "from tests.support.stack import Stack",
    "tests/integration/worker/test_full_redis.py": "from tests.support.stack import Stack",
    "tests/integration/worker/classify/test_claim_loop.py": "",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


@pytest.mark.parametrize(
    ("changed", "run"),
    [
        (
            "api/uploads/tar.py",
            ["tests/integration/api/uploads/test_bad_input.py", "tests/unit/api/uploads/test_tar.py"],
        ),
        ("api/uploads", ["tests/integration/api/uploads/test_bad_input.py", "tests/unit/api/uploads/test_tar.py"]),
        ("api/routes/jobs.py", ["tests/integration/api/test_jobs.py", "tests/unit/api/test_drain_rate.py"]),
        ("worker/classify/lease_run.py", ["tests/integration/worker/classify/test_claim_loop.py"]),
        ("worker/reaper.py", ["tests/integration/worker/test_reaper.py"]),
        ("client/darkroom/client.py", ["tests/integration/test_client.py"]),
        ("tests/unit/api/test_drain_rate.py", ["tests/unit/api/test_drain_rate.py"]),
        ("tests/integration/test_client.py", ["tests/integration/test_client.py"]),
        ("tests/support/store.py", ["tests/integration/api/test_jobs.py"]),
        ("tests/integration/api/conftest.py", ["tests/integration/api/test_jobs.py"]),
        ("docs/decisions/README.md", [PAGES_TEST]),
        ("README.md", [PAGES_TEST]),
        ("tests/unit/api/test_deleted.py", []),
        ("bench/guard.py", []),
    ],
)
def test_a_change_is_tested_by_the_mirrored_folders(tree: Path, changed: str, run: list[str]) -> None:
    assert choose([changed], tree).run == run


def test_settings_are_on_a_page_too(tree: Path) -> None:
    assert PAGES_TEST in choose(["api/settings.py"], tree).run


def test_whole_stacks_are_left_to_make_test_and_named(tree: Path) -> None:
    choice = choose(["worker/lifecycle.py"], tree)
    assert choice.run == []
    assert choice.left == [
        "tests/integration/worker/test_full_redis.py: starts a whole stack",
        "tests/integration/worker/test_reaper.py: starts a whole stack",
    ]
    assert "starts a whole stack" not in str(
        choose(["worker/reaper.py", "tests/integration/worker/test_full_redis.py"], tree).left
    )


def test_a_change_without_tests_is_named(tree: Path) -> None:
    assert choose(["bench/guard.py"], tree).left == ["bench/guard.py: no tests of its own"]
