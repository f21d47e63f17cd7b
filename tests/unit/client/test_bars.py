import pytest
from darkroom.cli import bars
from darkroom.records import Item, Progress


def test_where_there_is_no_terminal_a_line_says_now_and_then_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    with bars.Bars(None, quiet=False) as shown, bars.Bars(None, quiet=True) as quiet:
        for seconds in range(0, 100, 10):
            now = 1000.0 + seconds
            for it in (shown, quiet):
                it.sent(Progress("a", seconds, seconds * 100_000, sealed=False))
                it.item(Item(seconds, None, "failed" if seconds == 20 else "succeeded"))
    assert capsys.readouterr().err.splitlines() == [
        "darkroom: uploaded 30 images (3.0 MB), classified 3, failed 1",
        "darkroom: uploaded 60 images (6.0 MB), classified 6, failed 1",
        "darkroom: uploaded 90 images (9.0 MB), classified 9, failed 1",
    ]
