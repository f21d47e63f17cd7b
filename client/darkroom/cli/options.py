"""Flags that commands share, and the images that a command line names."""

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

from darkroom.cli.output import FORMATS
from darkroom.cli.state import State
from darkroom.images import SUFFIXES, Image, is_url, pictures

_FOLDER_NAME_WIDTH = 40  # of a table, whose names are not known before

Function = TypeVar("Function", bound=Callable[..., Any])


def _flag(context: click.Context, parameter: click.Parameter, value: object) -> None:
    if value not in (None, False):
        context.ensure_object(State).flags[str(parameter.name)] = value


def common(command: Function) -> Function:
    for option in (
        click.option("--json", is_flag=True, expose_value=False, callback=_flag, help="The API's own objects."),
        click.option(
            "--quiet", is_flag=True, expose_value=False, callback=_flag, help="Nothing but results and errors."
        ),
        click.option(
            "--api-key-file", type=click.Path(), expose_value=False, callback=_flag, help="Its text is the key."
        ),
        click.option("--url", expose_value=False, callback=_flag, help="The server; or DARKROOM_URL, or config.toml."),
    ):
        command = option(command)
    return command


def submits(command: Function) -> Function:
    """The arguments of commands that hand in images."""
    for option in (
        click.option("--new", is_flag=True, help="Begin anew, even if this command was interrupted before."),
        click.option("--webhook-url", help="A URL that the server calls when the job has ended."),
        click.option("--urls", type=click.Path(), help="A file with a URL on each line; - is stdin."),
        click.option("--name", default="*", metavar="GLOB", help="Of folders, only pictures with such names."),
        click.option("--lane", type=click.Choice(["interactive", "bulk"])),
        click.option("--top-k", type=click.IntRange(1, 100)),
        click.option("--model", help="A model's name, or name@version."),
        click.argument("paths", nargs=-1, metavar="PATH…|URL…|-"),
    ):
        command = option(command)
    return common(command)


def prints(command: Function) -> Function:
    for option in (
        click.option("--format", "format_", type=click.Choice(FORMATS), help="Default: table in a terminal, else csv."),
        click.option("-o", "output", type=click.Path(path_type=Path), help="A file: .csv, .ndjson or .json."),
    ):
        command = option(command)
    return command


class Inputs:
    """The images of a command line, each time that they are iterated."""

    def __init__(self, paths: tuple[str, ...], urls: str | None, pattern: str) -> None:
        self._paths, self._pattern = paths, pattern
        self._urls = None if urls is None else Path(urls)
        self.once = "-" in paths or urls == "-"
        """Whether they come from stdin."""
        self.widest_name = max((_FOLDER_NAME_WIDTH if Path(it).is_dir() else len(it) for it in paths), default=0)
        if not paths and urls is None:
            raise click.UsageError("Name at least one file, folder or URL.")
        for path in paths:
            if path != "-" and not is_url(path):
                if not os.path.lexists(path):
                    raise click.UsageError(f"{path}: no such file or folder")
                if Path(path).is_dir() and next(pictures(path, pattern), None) is None:
                    raise click.UsageError(f"{path}: no pictures below it ({' '.join(SUFFIXES)})")
        if urls is not None and urls != "-" and not Path(urls).is_file():
            raise click.UsageError(f"--urls {urls}: no such file")

    def __iter__(self) -> Iterator[Image]:
        for path in self._paths:
            if path == "-":
                yield "stdin", sys.stdin.buffer
            elif not is_url(path) and Path(path).is_dir():
                prefix = f"{path.rstrip('/')}/" if len(self._paths) > 1 else ""
                yield from (it._replace(name=prefix + it.name) for it in pictures(path, self._pattern))
            else:
                yield path
        if self._urls is not None:
            with sys.stdin if str(self._urls) == "-" else self._urls.open(encoding="utf-8-sig") as lines:
                yield from filter(None, map(str.strip, lines))
