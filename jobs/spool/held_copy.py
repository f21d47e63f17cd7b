"""`python -m jobs.spool.held_copy FOLDER`: the uploads of a folder as a tar on standard output, for a backup.

It holds the uploads, writes the line `held`, waits for a line on standard input, and only then writes the tar. What
Redis refers to at any time between is in it.
"""

import sys
import tarfile
import threading
from contextlib import suppress
from pathlib import Path

from jobs.spool.folder import OWNER_FILE, SUBFOLDER
from jobs.spool.hold import HOLD_SECONDS_MAX, hold, is_held, let_go
from jobs.spool.names import SpooledFile

HELD = b"held\n"


def main(parent: Path) -> None:
    folder, done = parent / SUBFOLDER, threading.Event()
    if not folder.is_dir():  # no upload has ever been large, or they are in S3
        _copy(folder)
        return

    def go_on_holding() -> None:
        while not done.wait(HOLD_SECONDS_MAX / 10):
            hold(folder)

    if is_held(folder):
        sys.exit(f"another backup is being made, or was killed less than {HOLD_SECONDS_MAX} s ago")
    hold(folder)
    holder = threading.Thread(target=go_on_holding, daemon=True)
    holder.start()
    try:
        _copy(folder)
    finally:
        done.set()
        holder.join()
        let_go(folder)


def _copy(folder: Path) -> None:
    out = sys.stdout.buffer
    out.write(HELD)
    out.flush()
    if not sys.stdin.buffer.readline():
        return  # whoever makes the backup is gone
    with tarfile.open(fileobj=out, mode="w|") as tar:
        for path in folder.glob("*"):
            # A file that is being written is cut off here, and not referred to.
            if path.name == OWNER_FILE or SpooledFile.named(path.name):
                with suppress(FileNotFoundError), path.open("rb") as file:
                    tar.addfile(tar.gettarinfo(arcname=path.name, fileobj=file), file)
    out.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
