"""The commands that look at jobs and at the server."""

import json
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import click

from darkroom._sync.client import Darkroom
from darkroom._sync.job import Job
from darkroom.cli.doctor import examine
from darkroom.cli.exits import IMAGES_FAILED, exit_code
from darkroom.cli.options import common, prints
from darkroom.cli.output import Output, table
from darkroom.cli.state import State
from darkroom.records import Counts

_WATCH_SECONDS = 2.0
_PATIENCE_SECONDS = 600.0  # of commands that follow a job


@click.command()
@click.option("--status", help="Only jobs in this state.")
@click.option("--limit", default=20, type=click.IntRange(1), show_default=True)
@common
@click.pass_obj
def jobs(state: State, status: str | None, limit: int) -> None:
    """Your jobs, newest first."""
    with state.client() as client:
        found = list(islice(client.jobs(status=status), limit))
    if state.json:
        click.echo(json.dumps([job.raw for job in found]))
    else:
        rows = [
            (it.id, it.status, it.counts.total, it.counts.succeeded, it.counts.failed, it.created_at) for it in found
        ]
        table(("id", "status", "images", "succeeded", "failed", "created"), rows)


def _of_job(name: str, *, retry_seconds: float = 10.0) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the argument ID, which is `last` or an id. It gets the client and the job."""

    def decorate(run: Callable[..., Any]) -> click.Command:
        def command(job_id: str, **options: Any) -> Any:
            state = click.get_current_context().find_object(State)
            assert state is not None
            with state.client(retry_seconds=retry_seconds) as client:
                return run(state, client.job(state.job_id(job_id)), **options)

        command.__doc__ = run.__doc__
        command.__click_params__ = getattr(run, "__click_params__", [])  # type: ignore[attr-defined]
        return click.command(name)(click.argument("job_id", metavar="ID", default="last")(common(command)))

    return decorate


@_of_job("job")
def show_job(state: State, job: Job) -> None:
    """One job, with the attempts to call its webhook."""
    webhook = job.webhook()
    if state.json:
        click.echo(json.dumps(job.raw | {"webhook": webhook}))
        return
    _print_job(job)
    if webhook["state"] != "none":
        click.echo(f"webhook: {webhook['state']}, {webhook['url']}")
        rows = [(it["at"], it["status"] or it["error"], f"{it['duration_ms']} ms") for it in webhook["attempts"]]
        table(("attempt", "answer", "took"), rows)


@_of_job("watch", retry_seconds=_PATIENCE_SECONDS)
def watch(state: State, job: Job) -> int:
    """Show a job's counts until it has ended."""
    for now in job.progress():
        job = now
        click.echo(json.dumps(now.raw) if state.json else f"{now.status}: {_counts(now.counts)}")
    return IMAGES_FAILED if job.counts.succeeded < job.counts.total else 0


@_of_job("results", retry_seconds=_PATIENCE_SECONDS)
@click.option("--failed", is_flag=True, help="Only images that failed.")
@click.option("--follow", is_flag=True, help="Wait for those that have not ended.")
@prints
def results(
    state: State, job: Job, *, failed: bool, follow: bool, output: Path | None, format_: str | None
) -> None:  # fmt: skip
    """The results of a job, in order."""
    with Output(output, "ndjson" if state.json else format_, widest_name=40) as to:
        for item in job.results(status="failed" if failed else None, follow=follow):
            to.write(item)


@_of_job("cancel")
def cancel(state: State, job: Job) -> None:
    """Cancel the images of a job that have not ended."""
    _print_job(job.cancel(), json_=state.json)


@_of_job("retry")
def retry(state: State, job: Job) -> None:
    """Try the failed images of a job again, as a new job."""
    again = job.retry()
    state.remember(again.id)
    _print_job(again, json_=state.json)


@_of_job("delete")
def delete(state: State, job: Job) -> None:
    """Delete a job and its results."""
    job.delete()
    if state.json:
        click.echo(json.dumps(job.raw))


@click.command()
@common
@click.pass_obj
def models(state: State) -> None:
    """The models, and how many workers serve them."""
    with state.client() as client:
        found = client.models()
    if state.json:
        click.echo(json.dumps([model.raw for model in found]))
    else:
        rows = [(it.id, "default" if it.default else "", it.workers, len(it.classes)) for it in found]
        table(("model", "", "workers", "classes"), rows)


@click.command()
@click.option("--watch", "keep", is_flag=True, help="Again each 2 s, until Ctrl-C.")
@common
@click.pass_obj
def status(state: State, keep: bool) -> None:  # noqa: FBT001 - click's
    """The queue, the workers, images/s, and how much room there is."""
    with state.client() as client:
        while True:
            _print_server(client, json_=state.json)
            if not keep:
                return
            time.sleep(_WATCH_SECONDS)
            if sys.stdout.isatty():
                click.clear()


@click.command()
@common
@click.pass_obj
def doctor(state: State) -> int:
    """Check address, version, clock, key, Redis, workers and one picture, and say what to do."""
    with state.client(retry_seconds=0) as client:
        failed = examine(client, json_=state.json)
    return 0 if failed is None else exit_code(failed)


def _counts(counts: Counts) -> str:
    done = f"{counts.succeeded} succeeded, {counts.failed} failed, {counts.canceled} canceled"
    return f"{counts.total} images: {counts.pending} pending, {done}"


def _print_job(job: Job, *, json_: bool = False) -> None:
    if json_:
        click.echo(json.dumps(job.raw))
        return
    click.echo(f"{job.id}\n{job.status}: {_counts(job.counts)}")
    click.echo(f"model {job.model}, lane {job.lane}, created {job.created_at:%Y-%m-%d %H:%M:%S %Z}")
    if job.eta_seconds is not None:
        click.echo(f"ends in about {job.eta_seconds:.0f} s")
    if job.expires_at is not None:
        click.echo(f"kept until {job.expires_at:%Y-%m-%d %H:%M:%S %Z}")
    if job.notice:
        click.echo(job.notice)


def _print_server(client: Darkroom, *, json_: bool) -> None:
    server = client.server()
    if json_:
        click.echo(json.dumps(server.raw))
        return
    click.echo(f"{client.url}: version {server.version}, model {server.default_model}")
    click.echo(f"workers {server.workers}, {server.images_per_second:g} images/s")
    for lane, waiting in server.queue.items():
        oldest = waiting.get("oldest_seconds")
        since = "" if oldest is None else f", the oldest for {oldest:.0f} s"
        click.echo(f"{lane}: {waiting['images']} images wait{since}")
    for name, budget in server.budgets.items():
        used = 100 * budget["used_bytes"] / max(1, budget["bytes_max"])
        click.echo(f"{name}: {used:.0f} % of {budget['bytes_max'] / 1e6:.0f} MB in use")
