"""Results as a table, CSV or JSON, on stdout or in a file."""

import csv
import json
import os
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TextIO

import click

from darkroom.records import Item

FORMATS = ("table", "csv", "ndjson")
_COLUMNS = ("index", "name", "status", "class", "confidence", "model", "error_code", "error_detail", "warnings")
_SUFFIXES = {".csv": "csv", ".ndjson": "ndjson", ".json": "json"}
# A spreadsheet would run a cell that begins so, also after a separator or line break. The API has the same rule.
_FORMULA = re.compile(r"(^|[;\t\r\n])(?=[=+\-@\t\r＝＋－＠])")
_NAME_WIDTH_MIN, _NAME_WIDTH_MAX, _CLASS_WIDTH = 12, 60, 28


class Output:
    """Writes items as they come. A file is renamed to its name when it is whole."""

    def __init__(self, path: Path | None, format_: str | None, *, widest_name: int = 0) -> None:
        if path is not None and path.suffix not in _SUFFIXES:
            raise click.UsageError(f"-o {path}: the name must end with {', '.join(_SUFFIXES)}")
        self._path = path
        self._format = (
            _SUFFIXES[path.suffix] if path is not None else format_ or ("table" if sys.stdout.isatty() else "csv")
        )
        self._width = min(max(widest_name, _NAME_WIDTH_MIN), _NAME_WIDTH_MAX)
        self._count = 0
        self._csv: Any = None  # made with the first item: bars that replace stdout begin after the head

    def __enter__(self) -> Self:
        self._part = self._path and self._path.with_name(self._path.name + ".part")
        self._file = None if self._part is None else open_text(self._part)
        if self._format == "csv":
            csv.writer(self._to, quoting=csv.QUOTE_ALL).writerow(_COLUMNS)
        elif self._format == "table":
            self._row("file", "class", "confidence")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._file is None:
            if kind is None:
                sys.stdout.flush()
            return
        assert self._path is not None
        assert self._part is not None
        try:
            if kind is None:
                self._file.write("]\n" if self._count else "[]\n") if self._format == "json" else None
                self._file.flush()
                os.fsync(self._file.fileno())
                self._file.close()
                self._part.replace(self._path)
        finally:
            with suppress(OSError):  # what a full disk did not take
                self._file.close()
            self._part.unlink(missing_ok=True)

    @property
    def _to(self) -> TextIO:
        return self._file or sys.stdout  # which a progress bar replaces

    def write(self, item: Item) -> None:
        if self._format == "table":
            confidence = "" if item.confidence is None else f"{item.confidence:.4f}"
            error = item.error.code if item.error else item.status
            self._row(item.name or str(item.index), item.class_name or f"({error})", confidence)
        elif self._format == "csv":
            self._csv = self._csv or csv.writer(self._to, quoting=csv.QUOTE_ALL)
            self._csv.writerow(_row(item))
        else:
            line = json.dumps(item.raw)
            self._to.write(line + "\n" if self._format == "ndjson" else f"{',' if self._count else '['}{line}\n")
        self._count += 1

    def _row(self, name: str, class_name: str, confidence: str) -> None:
        self._to.write(f"{printable(name):<{self._width}}  {printable(class_name):<{_CLASS_WIDTH}}  {confidence:>10}\n")


def open_text(path: Path) -> TextIO:
    return path.open("w", encoding="utf-8", errors="backslashreplace", newline="")


def _row(item: Item) -> tuple[object, ...]:
    return (
        item.index,
        _cell(item.name),
        item.status,
        _cell(item.class_name),
        None if item.confidence is None else f"{item.confidence:.6f}",
        _cell(item.model),
        item.error and _cell(item.error.code),
        item.error and _cell(item.error.detail),
        _cell(" ".join(item.warnings)),
    )


def _cell(text: str | None) -> str | None:
    return _FORMULA.sub(r"\1'", text) if text else text


def printable(text: str) -> str:
    """On one line, and without what a terminal would take as a command."""
    return "".join(it if it.isprintable() else it.encode("unicode_escape", "backslashreplace").decode() for it in text)


def table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    texts = [list(map(str, head)), *([printable("" if it is None else str(it)) for it in row] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*texts, strict=True)]
    for row in texts:
        print("  ".join(f"{it:<{width}}" for it, width in zip(row, widths, strict=True)).rstrip())
