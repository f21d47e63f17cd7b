"""How far a classify is, on stderr: two bars in a terminal, else a line now and then."""

import logging
import sys
import time
from contextlib import suppress
from threading import Event, Thread
from types import TracebackType
from typing import TYPE_CHECKING, Self

import click

from darkroom.records import Item, Progress

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress

_LINE_SECONDS = 30.0


class Bars:
    def __init__(self, total: int | None, *, quiet: bool) -> None:
        self._total = total
        self._quiet = quiet
        self._rich: RichProgress | None = None
        self._ended = Event()
        self._lines: Thread | None = None
        self.progress = Progress("", 0, 0, sealed=False)
        self.classified = self.failed = 0

    def __enter__(self) -> Self:
        if not self._quiet and sys.stderr.isatty():
            self._start()
        elif not self._quiet:
            self._lines = Thread(target=self._print_lines, daemon=True)
            self._lines.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._rich is not None:
            self._rich.stop()
        if self._lines is not None:
            self._lines.join(1.0)

    def sent(self, progress: Progress) -> None:
        self.progress = progress
        if progress.sealed:
            self._total = progress.images
        self._show()

    def item(self, item: Item) -> None:
        self.classified += 1
        self.failed += item.status != "succeeded"
        self._show()

    def _start(self) -> None:
        from rich.console import Console  # noqa: PLC0415 - only a terminal needs it
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn  # noqa: PLC0415
        from rich.progress import Progress as RichProgress  # noqa: PLC0415

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
        )
        self._rich = RichProgress(
            *columns,
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            redirect_stdout=sys.stdout.isatty(),  # above the bars; elsewhere, results are not for the terminal
        )
        self._up = self._rich.add_task("uploaded", total=self._total, rate="")
        self._down = self._rich.add_task("classified", total=self._total, rate="")
        self._began = time.monotonic()
        self._rich.start()

    def _show(self) -> None:
        if self._rich is not None:
            seconds = max(time.monotonic() - self._began, 0.001)
            up = f"{self.progress.sent_bytes / seconds / 1e6:.1f} MB/s"
            down = f"{self.classified / seconds:.0f} images/s, {self.failed} failed"
            self._rich.update(self._up, completed=self.progress.images, total=self._total, rate=up)
            self._rich.update(self._down, completed=self.classified, total=self._total, rate=down)

    def _print_lines(self) -> None:
        """Also while nothing moves: the server may be full, or away for minutes."""
        with suppress(OSError):  # of a stderr that is closed: the main thread meets it, too
            while not self._ended.wait(_LINE_SECONDS):
                sent = f"uploaded {self.progress.images} images ({self.progress.sent_bytes / 1e6:.1f} MB)"
                click.echo(f"darkroom: {sent}, classified {self.classified}, failed {self.failed}", err=True)


class EchoHandler(logging.Handler):
    """The client's warnings as lines on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"darkroom: {record.getMessage()}", err=True)
