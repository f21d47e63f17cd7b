"""The commands that hand in images."""

import json
import sys
from collections import Counter
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from darkroom.cli.bars import Bars
from darkroom.cli.exits import IMAGES_FAILED, INTERRUPTED
from darkroom.cli.options import Inputs, prints, submits
from darkroom.cli.output import Output
from darkroom.cli.state import State
from darkroom.errors import DarkroomError

_RETRY_SECONDS = 600.0  # a server may be away for a while in the middle of a folder


@click.command()
@submits
@prints
@click.pass_obj
def classify(
    state: State, /, *, paths: tuple[str, ...], urls: str | None, name: str, new: bool, output: Path | None,
    format_: str | None, **options: Any,
) -> int:  # fmt: skip
    """Write the class of each image, while they are uploaded. Goes on where the same command was interrupted."""
    inputs = Inputs(paths, urls, name)
    client = state.client(retry_seconds=_RETRY_SECONDS)
    journal = _journal(state, inputs, "classify", paths, urls, name, new=new)
    is_terminal = sys.stderr.isatty() and not state.quiet
    total = sum(1 for _ in inputs) if is_terminal and not inputs.once else None
    errors = Counter[str]()
    bars = Bars(total, quiet=state.quiet)
    try:
        format_ = "ndjson" if state.json else format_
        with client, Output(output, format_, widest_name=inputs.widest_name) as to, bars:
            for item in client.classify_many(inputs, journal=journal, on_progress=bars.sent, **options):
                to.write(item)
                bars.item(item)
                if item.status != "succeeded":
                    errors[item.error.code if item.error else item.status] += 1
    except KeyboardInterrupt:
        _say_how_to_go_on(state, bars, journal)
        return INTERRUPTED
    finally:
        if bars.progress.job_id:
            state.remember(bars.progress.job_id)
    if journal is not None:
        journal.unlink(missing_ok=True)
    if not state.quiet:
        failed = f", {bars.failed} failed ({', '.join(f'{code} {count}' for code, count in errors.most_common())})"
        images = f"{bars.classified} image{'s' * (bars.classified != 1)}"
        click.echo(f"darkroom: {images}{failed if errors else ''}, job {bars.progress.job_id}", err=True)
    return IMAGES_FAILED if errors else 0


@click.command()
@submits
@click.pass_obj
def submit(
    state: State, /, *, paths: tuple[str, ...], urls: str | None, name: str, new: bool, **options: Any
) -> int:  # fmt: skip
    """Hand in images as one job, and print its id. Goes on where the same command was interrupted."""
    inputs = Inputs(paths, urls, name)
    bars = Bars(None, quiet=state.quiet)
    with state.client(retry_seconds=_RETRY_SECONDS) as client:
        journal = _journal(state, inputs, "submit", paths, urls, name, new=new)
        try:
            with bars:
                job = client.submit(inputs, journal=journal, on_progress=bars.sent, **options)
        except KeyboardInterrupt:
            _say_how_to_go_on(state, bars, journal)
            return INTERRUPTED
    if journal is not None:
        journal.unlink(missing_ok=True)
    state.remember(job.id)
    click.echo(json.dumps(job.raw) if state.json else job.id)
    return 0


def _journal(state: State, inputs: Inputs, *call: object, new: bool) -> Path | None:
    """None for images that come once, from stdin."""
    if inputs.once:
        return None
    journal = state.journal(*call)
    if new:
        journal.unlink(missing_ok=True)
    return journal


def _say_how_to_go_on(state: State, bars: Bars, journal: Path | None) -> None:
    until = ""
    if journal is None or not bars.progress.job_id:
        click.echo("darkroom: interrupted", err=True)
        return
    with suppress(DarkroomError, KeyError), state.client(retry_seconds=0) as client:
        sealed, now = bars.progress.sealed, datetime.now().astimezone()
        limit = client.server().limits["results_kept_seconds" if sealed else "open_job_idle_seconds"]
        known = client.job(bars.progress.job_id).expires_at if sealed else None  # a job has it from its end on
        ends = (known or now + timedelta(seconds=limit)).astimezone()
        until = f" until {ends:%H:%M}" if ends.date() == now.date() else f" until {ends:%Y-%m-%d %H:%M}"
    sent = f"job {bars.progress.job_id} has {bars.progress.images} images"
    click.echo(f"darkroom: interrupted: {sent}; the same command goes on{until}, --new begins anew", err=True)
