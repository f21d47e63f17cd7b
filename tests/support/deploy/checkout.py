"""A repository of its own, from which a test pushes releases."""

import shutil
import subprocess
from pathlib import Path

from tests.support.processes import ROOT


class Checkout:
    """This working tree, as a repository of its own in which every file is committed."""

    def __init__(self, root: Path) -> None:
        self.root = root
        files = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard", folder=ROOT)
        for name in files.split("\0")[:-1]:
            if (ROOT / name).is_file():  # not deleted here
                (root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, root / name)
        self._git("init", "--quiet")
        self.commit()

    def commit(self) -> None:
        self._git("add", "--all")
        self._git("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "--message", "m")

    def append(self, name: str, line: str) -> None:
        with (self.root / name).open("a") as file:
            file.write(f"{line}\n")

    def _git(self, *arguments: str, folder: Path | None = None) -> str:
        command = ["git", *arguments]
        return subprocess.run(command, cwd=folder or self.root, capture_output=True, text=True, check=True).stdout
