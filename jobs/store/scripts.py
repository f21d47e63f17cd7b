"""The store's Lua scripts, as the server knows them."""

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jobs.store.keys import lua_prelude

NAMES = (
    *("enqueue", "part", "claim", "renew", "finish", "release", "cancel", "delete", "sweep"),
    *("deliver", "webhook", "register"),
)


class Script(NamedTuple):
    source: bytes
    sha1: str


@cache
def load_scripts(database: int) -> dict[str, Script]:
    """Every script by name, with the names of `jobs/store/keys.py` and the shared functions in its head."""
    folder = files("jobs.store") / "lua"
    head = lua_prelude(database) + (folder / "lib.lua").read_text()
    return {name: _script((folder / f"{name}.lua").read_text(), head) for name in NAMES}


def _script(text: str, head: str) -> Script:
    shebang, body = text.split("\n", 1)  # the server reads the script's flags from its first line
    source = f"{shebang}\n{head}\n{body}".encode()
    return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())
