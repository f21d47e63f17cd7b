"""The container's health check: exits with 0 if this worker's children were ready lately. Imports nothing slow."""

import os
import sys
import time
from pathlib import Path

FRESH_SECONDS = 15

if __name__ == "__main__":
    try:
        age = time.time() - Path(os.environ["ALIVE_FILE"]).stat().st_mtime
    except OSError:
        sys.exit("not ready yet")
    if age > FRESH_SECONDS:
        sys.exit(f"last ready {age:.0f} s ago")
