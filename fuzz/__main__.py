"""Fuzz the parsers, guided by coverage, from the inputs that are kept and from real uploads: `make fuzz`.

    python -m fuzz [tar zip …] [--seconds 600]     # all parsers, one after the other
    python -m fuzz tar --input FILE                # try one input

An input that breaks a parser is written to fuzz/found/, and the command exits with 1. Of the others, the fewest that
reach as much are kept in fuzz/inputs/, and tests/unit/fuzz/ tries each. Needs `make .venv/fuzz`: atheris has packages
for Linux on x86-64 alone.
"""

import argparse
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from fuzz.corpus import keep, kept
from fuzz.seeds import seeds
from fuzz.targets import TARGETS

FOUND = Path(__file__).parent / "found"
BYTES_MAX = 64 << 10
_SECONDS_OF_INPUT_MAX = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("targets", nargs="*", metavar="target", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--seconds", type=int, default=600, help="for each target")
    parser.add_argument("--input", type=Path)
    options = parser.parse_args()
    targets = options.targets or list(TARGETS)
    if unknown := set(targets) - TARGETS.keys():
        parser.error(f"no such target: {', '.join(unknown)}")
    if options.input:
        for target in targets:
            TARGETS[target](options.input.read_bytes())
        return
    FOUND.mkdir(exist_ok=True)
    codes = [fuzz(target, options.seconds) for target in targets]
    sys.exit(1 if any(codes) else 0)


def fuzz(target: str, seconds: int) -> int:
    """The exit status of libFuzzer: 0 if nothing was found."""
    with TemporaryDirectory() as folder:
        inputs = Path(folder) / "inputs"
        inputs.mkdir()
        for number, data in enumerate([*kept(target), *seeds(target)]):
            (inputs / str(number)).write_bytes(data)
        code = run(target, f"-max_total_time={seconds}", "-print_final_stats=1", f"-artifact_prefix={FOUND}/", inputs)
        if not code:
            keep_fewest(target, inputs)
    return code


def keep_fewest(target: str, inputs: Path) -> None:
    """Of the inputs in this folder, those that together reach as much as all."""
    with TemporaryDirectory() as fewest:
        if run(target, "-merge=1", fewest, inputs):
            sys.exit(f"the inputs of {target} could not be reduced")
        keep(target, [path.read_bytes() for path in Path(fewest).iterdir()])


def run(target: str, *options: str | Path) -> int:
    """Run libFuzzer. It starts itself again as a program of this name, so that it needs one."""
    with TemporaryDirectory() as folder:
        program = Path(folder) / "fuzz"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m fuzz.run {target} "$0" "$@"\n')
        program.chmod(0o700)
        limits = f"-max_len={BYTES_MAX}", f"-timeout={_SECONDS_OF_INPUT_MAX}"
        return subprocess.run([program, *limits, *options], check=False).returncode


if __name__ == "__main__":
    main()
