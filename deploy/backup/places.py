"""Where a stack keeps its data: `make run` in a folder, compose in volumes. Both by the same commands."""

import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO

from deploy.backup.archive import BackupError
from jobs.spool.folder import SUBFOLDER
from jobs.spool.held_copy import HELD

AOF_FOLDER = "appendonlydir"
SAVE_SECONDS_MAX = 3600
_SCRIPT = Path(__file__).with_name("place.sh")


class Place(ABC):
    """`redis_shell`, `api_shell`: commands that run sh where Redis' folder is, and where the uploads are."""

    redis_shell: list[str]
    api_shell: list[str]
    api_python: list[str]
    redis_folder: str
    uploads_folder: str

    @abstractmethod
    def save(self, rdb: Path) -> None:
        """Write what the running Redis holds now."""

    @abstractmethod
    def stopped(self) -> AbstractContextManager[str]:
        """For a restore: nothing may run. The value is the program that checks RDB files."""

    @contextmanager
    def held_uploads(self) -> Iterator[Callable[[], IO[bytes]]]:
        """Hold the uploads: none is deleted until the end. The value starts the copy, and returns its tar."""
        command = [*self.api_python, "-m", "jobs.spool.held_copy", self.uploads_folder]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as copy:
            assert copy.stdin is not None
            assert copy.stdout is not None
            assert copy.stderr is not None
            stdin, stdout = copy.stdin, copy.stdout

            def begin() -> IO[bytes]:
                stdin.write(b"copy\n")
                stdin.flush()
                return stdout

            if stdout.readline() != HELD:
                raise BackupError(f"the uploads cannot be held: {_one_line(copy.stderr.read())}")
            yield begin
            stdin.close()
            stdout.read()  # what follows the tar's end
            errors = copy.stderr.read()
        if copy.returncode:
            raise BackupError(f"the uploads cannot be copied: {_one_line(errors)}")

    def is_used(self) -> bool:
        """Whether there is data of a stack already."""
        folders = ((self.redis_shell, self.redis_folder, AOF_FOLDER), (self.api_shell, self.uploads_folder, SUBFOLDER))
        return any(self._place(shell, "used", folder, name) for shell, folder, name in folders)

    def store_rdb(self, write: Callable[[IO[bytes]], None], check: str) -> None:
        self._place(self.redis_shell, "rdb", self.redis_folder, check, write=write)

    def put_uploads(self, write: Callable[[IO[bytes]], None], stamp: str) -> None:
        self._place(self.api_shell, "uploads", self.uploads_folder, stamp, write=write)

    def commit_rdb(self, stamp: str) -> None:
        self._place(self.redis_shell, "commit", self.redis_folder, stamp)

    @staticmethod
    def _place(shell: list[str], *arguments: str, write: Callable[[IO[bytes]], None] | None = None) -> str:
        """Run place.sh. `write` writes its standard input."""
        command = [*shell, "-c", _SCRIPT.read_text(), "place.sh", *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as placing:
            assert placing.stdin is not None
            with suppress(BrokenPipeError):  # it has ended early, and says why
                if write is not None:
                    write(placing.stdin)
            output, errors = placing.communicate()
        if placing.returncode:
            raise BackupError(f"cannot put {arguments[0]} into {arguments[1]}: {_one_line(errors)}")
        return output.decode().strip()


def _one_line(output: bytes) -> str:
    lines = output.decode(errors="replace").strip().splitlines()
    return "; ".join(lines[-3:]) or "no reason given"
