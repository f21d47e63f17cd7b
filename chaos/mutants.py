"""Break the product in small ways, and show that the fault suite sees each: `python -m chaos.mutants [NAME …]`.

Each mutant is a copy of the tree with a change. The suite runs on it for a short time, with its whole load and the
fault at which the change would hurt somebody. A mutant is caught if the suite says what is wrong; if it does not end
within RUN_SECONDS_MAX, there is no verdict. With `--unchanged`, the suite runs beside the same faults on the tree as it
is, and must find nothing.

Prints the table of docs/RELIABILITY.md; exits with 1 if a mutant was not caught.
"""

import argparse
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from tests.support.processes import ROOT

RUN_SECONDS_MAX = 150
STOP_SECONDS_MAX = 60
RATE, SECONDS, END_SECONDS = 80, 15, 50
LUA = "jobs/store/lua/"
CALM = "connections cut"
"""For what shows without a fault."""


class Mutant(NamedTuple):
    """Changes of one file, and the fault beside which the suite runs, so often."""

    fault: str
    times: int
    file: str
    changes: dict[str, str]
    """What stands there once, and what takes its place."""


MUTANTS = {
    "an Idempotency-Key is ignored": Mutant(
        CALM,
        3,
        f"{LUA}enqueue.lua",
        {"local first = redis.call('GET', idempotency_key)": "local first = nil"},
    ),
    "a finish counts twice": Mutant(
        CALM,
        3,
        f"{LUA}finish.lua",
        {"items_ended = items_ended + chunk_items": "items_ended = items_ended + 2 * chunk_items"},
    ),
    "a late finish is accepted": Mutant(
        "worker frozen",
        2,
        f"{LUA}finish.lua",
        {
            "is_leased[chunk_refs[at]] = found == 1": "is_leased[chunk_refs[at]] = true",
            "  if not is_live(state) or earlier_results then return end\n": "",
        },
    ),
    "a lost lease drops a chunk": Mutant(
        "worker killed",
        2,
        f"{LUA}release.lua",
        {"local readied = 0\n": "local readied = 0\nif reason == 'worker_lost' then table.remove(chunk_refs) end\n"},
    ),
    "a crash is charged to a neighbour": Mutant(
        "poison: child crashes",
        1,
        f"{LUA}release.lua",
        {"tostring(reached) or nil": "tostring((reached + 1) % 8) or nil"},
    ),
    "images that ran before a crash all get the first one's result": Mutant(
        "poison: child crashes",
        2,
        "worker/classify/lease_run.py",
        {"        return outcomes if fits else []\n": "        return outcomes[:1] * len(outcomes) if fits else []\n"},
    ),
    "a followed stream ends early": Mutant(
        "API stopped (SIGTERM)",
        3,
        "api/results/export.py",
        {"                raise StreamInterrupted\n": "                return\n"},
    ),
    "a webhook is not written": Mutant(
        CALM,
        3,
        f"{LUA}finish.lua",
        {"if webhook_url then redis.call('ZADD', K.webhooks_due, now, id) end": ""},
    ),
    "a lost reply is told as a refusal": Mutant(
        "replies of Redis lost",
        2,
        "jobs/store/for_api/submit.py",
        {
            "            return await self._resolve(submission.id, deadline_ms)\n": "            "
            "raise StoreUnavailable from None\n"
        },
    ),
    "a part is added without looking at what is there": Mutant(
        "replies of Redis lost",
        2,
        f"{LUA}part.lua",
        {"if hold_ends == 0 or chunks_before < part_chunks then return refuse('ok') end": ""},
    ),
    "a chunk that does not continue what is there is taken": Mutant(
        "Redis without its tail",
        3,
        f"{LUA}part.lua",
        {"if chunks_before > part_chunks then return refuse('lost') end\n": ""},
    ),
    "a lost doorbell is not rung again": Mutant(
        "last doorbell lost",
        2,
        f"{LUA}sweep.lua",
        {"if has_ready(model) then\n    ring_doorbell(model, 1)\n  else": "if not has_ready(model) then"},
    ),
    "an empty Redis is not told the doorbells": Mutant(
        "Redis empty",
        1,
        "worker/model_registration.py",
        {
            "            if templates and store.lacks_doorbells(templates):\n": "            if not templates:\n",
        },
    ),
    "upload bytes are not freed": Mutant(
        CALM, 3, f"{LUA}finish.lua", {"add_to_uploads(sharer, change.uploads, change.spooled)": ""}
    ),
    "a deleted job stays": Mutant(
        CALM, 3, f"{LUA}delete.lua", {"delete_record(id, owner)": "delete_references(id, owner)"}
    ),
    "a page leaves an item out": Mutant(
        CALM,
        3,
        "api/routes/results.py",
        {'next_cursor = f"{number}-{at}-{item.index}"': 'next_cursor = f"{number}-{at + 1}-{item.index + 1}"'},
    ),
    "a signal to a group is charged to the images": Mutant(
        "worker's group stopped (SIGTERM)",
        1,
        "worker/lifecycle.py",
        {
            "signal.signal(number, signal.SIG_IGN)": "signal.signal(number, signal.SIG_DFL)",
        },
    ),
    "a cancel loses finished results": Mutant(
        "open jobs canceled",
        2,
        f"{LUA}cancel.lua",
        {"end_job(id, job, owner,": "redis.call('HDEL', job, F.results .. '0')\nend_job(id, job, owner,"},
    ),
}


def copy_tree(tree: Path) -> None:
    ignored = shutil.ignore_patterns(".git", ".venv", "data", "__pycache__", "*.egg-info", ".*_cache")
    shutil.copytree(ROOT, tree, ignore=ignored)
    (tree / "data").symlink_to(ROOT / "data")


def change(name: str, mutant: Mutant, tree: Path) -> None:
    file = tree / mutant.file
    text = file.read_text()
    for old, new in mutant.changes.items():
        if text.count(old) != 1:
            sys.exit(f"{name}: {mutant.file} has the place {text.count(old)} times")
        text = text.replace(old, new)
    file.write_text(text)


def verdict(mutant: Mutant, tree: Path, folder: Path) -> str:
    """The first line that says what is wrong in this tree; empty if the suite found nothing."""
    command = [sys.executable, "-m", "chaos", "--small", "--until-wrong", "--logs", str(folder / "logs")]
    command += ["--rate", str(RATE), "--seconds", str(SECONDS), "--end-seconds", str(END_SECONDS)]
    command += ["--only", mutant.fault, "--times", str(mutant.times)]
    environment = os.environ | {"PYTHONPATH": str(tree)}
    output = folder / "output"
    with output.open("w") as file:
        process = subprocess.Popen(command, cwd=tree, env=environment, stdout=file, stderr=subprocess.STDOUT)
        try:
            process.wait(RUN_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)  # it ends its processes
            process.wait(STOP_SECONDS_MAX)
    printed = output.read_text()
    if "The promise held." in printed:
        return ""
    wrong = [line.removeprefix("WRONG: ") for line in printed.splitlines() if line.startswith("WRONG: ")]
    return wrong[0] if wrong else f"NO VERDICT: {printed[-300:]}"


def judge(name: str, mutant: Mutant, *, unchanged: bool) -> bool:
    """Print the row of a mutant, or of its fault on the unchanged tree. Whether the suite saw what it should see."""
    began = time.monotonic()
    with TemporaryDirectory(prefix="mutant-") as folder:
        tree = Path(folder) / "tree"
        copy_tree(tree)
        if not unchanged:
            change(name, mutant, tree)
        why = verdict(mutant, tree, Path(folder))
    seconds = time.monotonic() - began
    text = " ".join(why.replace("|", "/").split())[:160] or ("nothing is wrong" if unchanged else "NOT CAUGHT")
    print(f"| {'nothing' if unchanged else name} | {mutant.fault} | {text} | {seconds:.0f} |", flush=True)
    return unchanged == (not why) and not why.startswith("NO VERDICT")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mutants", nargs="*", metavar="NAME", help=f"default: all of {list(MUTANTS)}")
    parser.add_argument("--unchanged", action="store_true", help="run the same faults without the changes")
    options = parser.parse_args()
    wanted = {name: MUTANTS[name] for name in options.mutants or MUTANTS}
    if options.unchanged:  # each fault once
        wanted = {it.fault: it for it in wanted.values()}
    print("| what is changed | beside | the suite says | s |\n|---|---|---|---|", flush=True)
    as_it_should = [judge(name, mutant, unchanged=options.unchanged) for name, mutant in wanted.items()]
    print(f"{sum(as_it_should)} of {len(as_it_should)}")
    sys.exit(0 if all(as_it_should) else 1)


if __name__ == "__main__":
    main()
