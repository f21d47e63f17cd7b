"""Starts and ends attackers, which run in processes of their own (bench/hostile/attacks.py)."""

import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Self

import orjson

from bench.hostile.target import BEGINS, STOPPED
from tests.support.processes import ROOT

_BEGIN_SECONDS_MAX = 60  # to make what is sent
_END_SECONDS_MAX = 10


class Attackers:
    """A process that runs one attack at a time. Attacks end with it, and it with its parent, in every case."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "bench.hostile.attacks"]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
        return self

    def __exit__(self, *_: object) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            try:
                process.wait(_END_SECONDS_MAX)
            except subprocess.TimeoutExpired:
                process.kill()

    @contextmanager
    def attacking(
        self, name: str, port: int, *authorizations: str, seconds: float, victim: str = "", size: float = 1
    ) -> Iterator[None]:
        """From the moment on when it begins until the end of the block; for so many seconds at most."""
        assert self._process.stdin is not None
        order = {"port": port, "authorizations": authorizations, "seconds": seconds, "victim": victim, "size": size}
        self._process.stdin.write(orjson.dumps({"name": name, **order}) + b"\n")
        try:
            said = self._says(_BEGIN_SECONDS_MAX)
            assert said == BEGINS, f"{name}: {said or 'does not begin'}"
            yield
            assert not (said := self._says(0)), f"{name}: {said}"
        finally:
            self._end(name)

    def _end(self, name: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):
            self._process.stdin.write(b"\n")
        while (said := self._says(_END_SECONDS_MAX)) != STOPPED and self._process.poll() is None:
            assert said, f"{name}: does not end"

    def _says(self, seconds: float) -> str:
        """The next line, or "" if there is none by then."""
        assert self._process.stdout is not None
        found, _, _ = select.select([self._process.stdout], [], [], seconds)
        return self._process.stdout.readline().strip().decode() if found else ""
