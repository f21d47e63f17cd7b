"""The command `darkroom`: its commands, and how it exits."""

import logging
import os
import sys

import click

from darkroom.cli import queries, submits
from darkroom.cli.bars import EchoHandler
from darkroom.cli.exits import INTERRUPTED, USAGE, exit_code
from darkroom.cli.options import common
from darkroom.cli.state import State
from darkroom.errors import DarkroomError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@common
@click.version_option(package_name="darkroom-client")
@click.pass_context
def cli(context: click.Context) -> None:
    """Classify images on a Darkroom server."""
    context.ensure_object(State)


for _command in (
    submits.classify,
    submits.submit,
    queries.jobs,
    queries.show_job,
    queries.watch,
    queries.results,
    queries.cancel,
    queries.retry,
    queries.delete,
    queries.models,
    queries.status,
    queries.doctor,
):
    cli.add_command(_command)


def main() -> None:
    """Exits with 0; 1 images failed; 2 usage, or files here; 3 refused; 4 key; 5 unreachable; 130 Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr] # names need not be UTF-8
    code = _run()
    try:
        sys.stdout.flush()
    except OSError:  # which `_run` has dealt with: the interpreter is not to try again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    sys.exit(code)


def _run() -> int:
    log = logging.getLogger("darkroom")
    log.propagate = False
    log.addHandler(EchoHandler())
    code: int
    try:
        with cli.make_context("darkroom", sys.argv[1:]) as context:
            code = cli.invoke(context) or 0
        sys.stdout.flush()
    except click.exceptions.Exit as error:  # of --help
        code = error.exit_code
    except click.ClickException as error:
        error.show()
        code = USAGE
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except BrokenPipeError:  # who read stdout has read enough
        code = 0
    except (DarkroomError, OSError) as error:
        click.echo(f"darkroom: {' '.join(str(error).split())}", err=True)
        code = exit_code(error)
    return code
