"""Runs `python -m worker.inference` within the test's process."""

from pathlib import Path

import pytest

from jobs.model_manifest import Manifest
from jobs.model_packages import read_manifest
from worker.inference.command import main

SMALL = ("--classes", "a,b", "--input", "1x8x8")
"""Options for the small networks of tests/support/networks.py."""


def run_command(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def error_of(*arguments: object) -> str:
    """The one line with which the command fails."""
    with pytest.raises(SystemExit) as ended:
        run_command(*arguments)
    line = str(ended.value)
    assert line.startswith("darkroom inference: ")
    assert "\n" not in line
    return line


def export_two_classes(folder: Path, *options: object) -> Manifest:
    run_command("export", "tests.support.networks:two_classes", folder, *SMALL, *options)
    return read_manifest(folder)
