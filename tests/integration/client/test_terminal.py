"""What the command shows in a terminal while it runs."""

import csv
import os
import pty
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.integration.client.conftest import command_environment, command_line
from tests.support.processes import ROOT, Api
from tests.support.waiting import wait_until

_COLOR = re.compile(r"\x1b\[[0-9;]*m")
_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A pseudo-terminal that keeps what is written to it."""

    def __init__(self) -> None:
        self._own, self.programs = pty.openpty()
        os.set_blocking(self._own, False)
        self.raw = ""

    def text(self) -> str:
        """What was written so far, without control sequences."""
        try:
            while data := os.read(self._own, 1 << 16):
                self.raw += data.decode(errors="replace")
        except OSError:  # nothing more now, or nobody has it open any more
            pass
        return _CONTROL.sub("", self.raw)

    def close(self) -> None:
        os.close(self._own)
        os.close(self.programs)


@contextmanager
def terminal() -> Iterator[Terminal]:
    opened = Terminal()
    try:
        yield opened
    finally:
        opened.close()


def test_two_bars_show_how_far_a_folder_is(api: Api, tmp_path: Path) -> None:
    environment = command_environment(tmp_path, api.url, TERM="xterm-256color", COLUMNS="120")
    with terminal() as shown, (tmp_path / "rows.csv").open("w") as rows:
        pictures = ["tests/data/0018-bag.png"] * 3000 + ["LICENSE"]
        running = subprocess.Popen(
            command_line("classify", *pictures), cwd=ROOT, env=environment, stdout=rows, stderr=shown.programs
        )
        wait_until(lambda: shown.text() and running.poll() is not None, what="the end")
        text = shown.text()
    assert running.returncode == 1
    assert re.search(r"uploaded +\S+ +\d+/3001 +[\d.]+ MB/s", text), text[-2000:]
    assert re.search(r"classified +\S+ +\d+/3001 +\d+ images/s, 0 failed", text), text[-2000:]
    assert "darkroom: 3001 images, 1 failed (not_an_image 1), job " in text
    assert _COLOR.search(shown.raw), "the bars have colours"
    names = [row["name"] for row in csv.DictReader((tmp_path / "rows.csv").read_text().splitlines())]
    assert names == pictures, "the results are where stdout leads"


def test_no_color_and_quiet_are_obeyed(api: Api, tmp_path: Path) -> None:
    for arguments, variables in ((["--quiet"], {}), ([], {"NO_COLOR": "1"})):
        environment = command_environment(tmp_path, api.url, TERM="xterm-256color", **variables)
        with terminal() as shown:
            command = command_line("classify", "tests/data", "--new", "--format", "csv", *arguments)
            subprocess.run(
                command,
                cwd=ROOT,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=shown.programs,
                check=True,
                timeout=60,
            )
            text = shown.text()
        assert bool(text) is not bool(arguments)
        assert not re.search(r"\x1b\[[0-9;]*3[0-9]", shown.raw), "no colour"


def test_the_status_is_shown_again_until_ctrl_c(api: Api, tmp_path: Path) -> None:
    with terminal() as shown:
        running = subprocess.Popen(
            command_line("status", "--watch"),
            env=command_environment(tmp_path, api.url, TERM="xterm"),
            stdout=shown.programs,
            stderr=subprocess.PIPE,
        )
        wait_until(lambda: shown.text().count(f"{api.url}: version ") >= 2, what="the status for a second time")
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert (running.returncode, errors) == (130, b"")
