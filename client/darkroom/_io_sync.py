"""What differs between `_async.py` and `_sync.py`, here for blocking calls."""

from collections.abc import Callable
from contextlib import closing
from time import sleep
from typing import ParamSpec, TypeVar

__all__ = ["closing", "in_thread", "sleep"]
P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    return function(*args, **kwargs)
