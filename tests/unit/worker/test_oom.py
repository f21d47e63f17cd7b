from pathlib import Path

import pytest

from worker.oom import oom_kills


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n", 2),
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 7\n", 7),
        ("low 0\n", 0),
        ("oom_kill many\n", 0),
    ],
)
def test_kills_are_counted_by_either_version_of_the_controller(tmp_path: Path, text: str, count: int) -> None:
    file = tmp_path / "memory.events"
    file.write_text(text)
    assert oom_kills(tmp_path / "not there", file) == count
