import pytest
from darkroom.cli import bars
from darkroom.records import Item, Progress

from tests.support.waiting import wait_until


def test_where_there_is_no_terminal_a_line_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also while nothing moves: no image and no part comes after the first ones."""
    monkeypatch.setattr(bars, "_LINE_SECONDS", 0.01)
    said = list[str]()

    def lines() -> int:
        said.extend(capsys.readouterr().err.splitlines())
        return len(said)

    with bars.Bars(None, quiet=False) as shown:
        shown.sent(Progress("a", 30, 3_000_000, sealed=False))
        for index, status in enumerate(("succeeded", "failed")):
            shown.item(Item(index, None, status))
        lines()
        said.clear()  # those of before
        wait_until(lambda: lines() >= 3, seconds=10, what="lines")
    assert set(said) == {"darkroom: uploaded 30 images (3.0 MB), classified 2, failed 1"}
    assert shown._lines is not None
    assert not shown._lines.is_alive()


def test_quiet_has_no_lines(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(bars, "_LINE_SECONDS", 0.0)
    with bars.Bars(None, quiet=True) as quiet:
        quiet.sent(Progress("a", 30, 3_000_000, sealed=False))
    assert (quiet._lines, capsys.readouterr().err) == (None, "")
