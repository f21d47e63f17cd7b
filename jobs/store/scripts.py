"""The store's Lua scripts, as the server knows them, and the arguments that both sides call the sweep with."""

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from jobs.records import BY_REFERENCE, LANE_CODE, SPOOLED, STATE_OF_CODE
from jobs.settings import StoreSettings
from jobs.store.keys import FIELDS, KEYS, ended_channel

NAMES = (
    *("enqueue", "part", "seal", "claim", "renew", "finish", "release", "cancel", "delete", "sweep"),
    *("deliver", "webhook", "register"),
)

_ADMITTING = ("enqueue", "part")  # scripts that accept items
_SWEEP_MODELS_MAX = 2  # so that one call of sweep.lua touches at most 256 keys
_CONSTANT = re.compile(r"\b(K|F|STATE|LANE)\.(\w+)\b")


class Script(NamedTuple):
    source: bytes
    sha1: str


@cache
def load_scripts(database: int) -> dict[str, Script]:
    """Every script by name, with the shared functions of `lib.lua`, and of `admission.lua` if it accepts, in its head.

    `K.name`, `F.name`, `STATE.name` and `LANE.name` become literals here, which cost nothing at run time: a table of
    them would be built anew in each call.

    Raises:
        KeyError: a script uses a name that is not in `jobs/store/keys.py`.
    """
    folder = files("jobs.store") / "lua"
    library, admission = ((folder / f"{name}.lua").read_text() for name in ("lib", "admission"))
    constants: dict[str, Mapping[str, str | int]] = {
        "K": {**KEYS, "channel": ended_channel(database), "by_reference": BY_REFERENCE, "spooled": SPOOLED},
        "F": FIELDS,
        "STATE": {str(state): code.decode() for code, state in STATE_OF_CODE.items()},
        "LANE": {str(lane): code.decode() for lane, code in LANE_CODE.items()},
    }

    def literal(match: re.Match[str]) -> str:
        value = constants[match[1]][match[2]]
        return f"'{value}'" if isinstance(value, str) else str(value)

    def script(name: str) -> Script:
        # The server reads the script's flags from its first line.
        shebang, body = (folder / f"{name}.lua").read_text().split("\n", 1)
        head = library + (admission if name in _ADMITTING else "")
        source = f"{shebang}\n{_CONSTANT.sub(literal, head + body)}".encode()
        return Script(source, hashlib.sha1(source, usedforsecurity=False).hexdigest())

    return {name: script(name) for name in NAMES}


def sweep_args(settings: StoreSettings, models: Iterable[str]) -> Iterator[list[str | int]]:
    """The arguments of `sweep.lua` for all the models, a few models a call.

    It frees records before their budget is full: down to 90% of it.
    """
    common = [
        int(settings.result_ttl_seconds * 1000),
        int(settings.min_result_ttl_seconds * 1000),
        int(settings.records_budget_bytes * 0.9),
        int(settings.queue_deadline_seconds * 1000),
    ]
    names = list(models)
    for first in range(0, max(1, len(names)), _SWEEP_MODELS_MAX):
        yield [*common, *names[first : first + _SWEEP_MODELS_MAX]]
