"""The docker command: runs with a deadline, and fails with one line."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from deploy.ec2.errors import DeployError

COMMAND_SECONDS_MAX = 120
TRANSFER_SECONDS_MAX = 3600
"""Of a build and of one push: an image of the CUDA build has 8 GB."""
_OWN_CREDENTIALS = ("auths", "credsStore", "credHelpers")


class Docker:
    def __init__(self, folder: Path, environment: Mapping[str, str] | None = None) -> None:
        """Runs in `folder`, with `environment` added to the process's own."""
        self._folder = folder
        self._environment = {**os.environ, **(environment or {})}

    def output(self, *arguments: str, stdin: str = "") -> str:
        """The standard output of a short command. Raises `DeployError` with the last line of its errors."""
        process = self._start(arguments, stderr=subprocess.PIPE)
        try:
            output, errors = process.communicate(stdin, timeout=COMMAND_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise _slow(arguments, COMMAND_SECONDS_MAX) from None
        if process.returncode:
            raise _failed(arguments, errors)
        return output

    def show(self, *arguments: str) -> None:
        """Run a command that may take long, and show on standard error what it prints. Raises as `output`."""
        process = self._start(arguments, stderr=subprocess.STDOUT)
        killer = threading.Timer(TRANSFER_SECONDS_MAX, process.kill)
        killer.start()
        last = ""
        try:
            with process:
                assert process.stdout is not None
                for line in process.stdout:
                    print(line, end="", file=sys.stderr, flush=True)
                    last = line.strip() or last
            if killer.finished.is_set():
                raise _slow(arguments, TRANSFER_SECONDS_MAX)
        finally:
            killer.cancel()
        if process.returncode:
            raise _failed(arguments, last)

    def _start(self, arguments: tuple[str, ...], *, stderr: int) -> "subprocess.Popen[str]":
        try:
            return subprocess.Popen(
                ["docker", *arguments],
                cwd=self._folder,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        except FileNotFoundError:
            raise DeployError("the docker command is not installed, and images are built with it") from None

    @contextmanager
    def logged_in(self, registry: str, password: str) -> Iterator["Docker"]:
        """The same with a configuration of its own, logged in to the registry; both end with the block."""
        with tempfile.TemporaryDirectory(prefix="darkroom-docker-") as folder:
            _configure(Path(folder))
            docker = Docker(self._folder, {**self._environment, "DOCKER_CONFIG": folder})
            docker.output("login", "--username", "AWS", "--password-stdin", registry, stdin=password)
            try:
                yield docker
            finally:
                docker.output("logout", registry)


def _slow(arguments: tuple[str, ...], seconds_max: int) -> DeployError:
    return DeployError(f"`docker {' '.join(arguments[:2])}` did not end within {seconds_max} s")


def _failed(arguments: tuple[str, ...], errors: str) -> DeployError:
    lines = errors.strip().splitlines() or ["failed, and does not say why"]
    return DeployError(f"`docker {arguments[0]}`: {lines[-1].strip()}")


def _configure(folder: Path) -> None:
    """The operator's configuration (engine, plugins, proxies) without any credentials or their helpers."""
    own = Path(os.environ.get("DOCKER_CONFIG") or Path.home() / ".docker")
    try:
        config = json.loads((own / "config.json").read_text())
    except FileNotFoundError:
        config = {}
    except ValueError:
        raise DeployError(f"{own / 'config.json'} is not JSON") from None
    kept = {name: value for name, value in config.items() if name not in _OWN_CREDENTIALS}
    (folder / "config.json").write_text(json.dumps(kept))
    for name in ("cli-plugins", "contexts"):
        if (own / name).is_dir():
            (folder / name).symlink_to(own / name)
