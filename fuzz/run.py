"""One run of libFuzzer over one target: `python -m fuzz.run TARGET PROGRAM [libFuzzer's options and folders]`.

`PROGRAM` is a file that runs this again.
"""

import sys

import atheris

with atheris.instrument_imports(include=["api", "jobs", "worker", "multipart", "zipfile"]):
    from fuzz.targets import TARGETS

if __name__ == "__main__":
    _, target, *command = sys.argv
    atheris.Setup(command, TARGETS[target])
    atheris.Fuzz()
