"""While a backup is made, no upload is deleted: what it has of Redis may refer to any that was there at its start."""

import os
import time
from pathlib import Path

HOLD_SECONDS_MAX = 300  # after the last `hold`: a backup that was killed must not fill the disk
_NAME = ".hold"


def hold(folder: Path) -> None:
    """Hold the uploads of a folder, or go on holding them."""
    os.close(os.open(folder / _NAME, os.O_WRONLY | os.O_CREAT, 0o640))
    os.utime(folder / _NAME)


def let_go(folder: Path) -> None:
    (folder / _NAME).unlink(missing_ok=True)


def is_held(folder: Path) -> bool:
    try:
        held_at = (folder / _NAME).stat().st_mtime
    except OSError:
        return False
    return abs(time.time() - held_at) < HOLD_SECONDS_MAX
