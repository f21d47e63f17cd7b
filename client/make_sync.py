"""Makes `darkroom/_sync/` from `darkroom/_async/`: the same code without its `async` and `await`."""

import re
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent / "darkroom"
_NAMES = {
    "AsyncClient": "Client",
    "AsyncDarkroom": "Darkroom",
    "AsyncGenerator": "Generator",
    "AsyncJob": "Job",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "_async": "_sync",
    "_io_async": "_io_sync",
    "aclose": "close",
    "aclosing": "closing",
    "aiter_bytes": "iter_bytes",
    "aread": "read",
}
_WORD = re.compile(r"\b(?:async |await )|\b[A-Za-z_]+\b")
_MADE = FOLDER / "_sync" / "made.py"  # for ruff's settings
_HEAD = '"""The blocking client, made from `darkroom/_async/` by `client/make_sync.py`: not to be changed here."""\n'


def to_sync(text: str) -> str:
    """Blocking code from asynchronous code. The docstring of the module is replaced."""
    body = text.split('"""', 2)[2].lstrip("\n")
    code = _WORD.sub(lambda word: "" if word[0] in ("async ", "await ") else _NAMES.get(word[0], word[0]), body)
    code = f"{_HEAD}\n{code}" if code else _HEAD
    for command in ("check --select I --fix", "format"):
        ruff = [Path(sys.executable).with_name("ruff"), *command.split(), "--quiet", "--stdin-filename", _MADE, "-"]
        code = subprocess.run(ruff, input=code, capture_output=True, text=True, check=True).stdout
    return code


if __name__ == "__main__":
    for source in sorted((FOLDER / "_async").glob("*.py")):
        (FOLDER / "_sync" / source.name).write_text(to_sync(source.read_text()))
