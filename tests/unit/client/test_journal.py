from pathlib import Path

import pytest
from darkroom import DarkroomError
from darkroom.journal import Journal
from darkroom.parts import Part

CALL = {"url": "http://127.0.0.1:8000", "model": "m"}


def written(path: Path) -> str:
    with Journal(path, CALL) as journal:
        journal.begin()
        journal.add_job("job-1")
        journal.add_part(Part("", b"", 3, "stamp", {1: "gone"}), 3)
        return journal.key


def test_a_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    key = written(tmp_path / "folder" / "journal")
    with Journal(tmp_path / "folder" / "journal", CALL) as journal:
        assert (journal.key, journal.job_id) == (key, "job-1")
        assert journal.parts == [{"images": 3, "stamp": "stamp", "unreadable": {"1": "gone"}, "total": 3}]


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_line_that_a_crash_has_cut_off_is_not_there(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "journal"
    key = written(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with Journal(path, CALL) as journal:
        assert (journal.key, journal.job_id, journal.parts) == (key, "job-1", [])
        journal.add_part(Part("", b"", 1, "s"), 1)
    with Journal(path, CALL) as journal:
        assert [entry["images"] for entry in journal.parts] == [1]


@pytest.mark.parametrize("damage", [b"", b"\n", b"no JSON\n", b"[]\n", b'{"call": 1}\n', b"\xff\n", b'{"job": "x"}\n'])
def test_a_journal_of_another_call_or_a_damaged_one_starts_anew(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "journal"
    key = written(path)
    with Journal(path, {**CALL, "model": "n"}) as journal:
        assert (journal.job_id, journal.key == key) == (None, False)
    path.write_bytes(damage)
    with Journal(path, CALL) as journal:
        assert (journal.job_id, journal.parts) == (None, [])
        journal.begin()
    with Journal(path, CALL) as again:
        assert again.key == journal.key


def test_a_call_that_runs_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    with Journal(path, CALL), pytest.raises(DarkroomError, match="is running already"):
        Journal(path, CALL)
    with Journal(path, CALL):
        pass
