"""What differs between `_async.py` and `_sync.py`, here for asyncio."""

from asyncio import sleep
from asyncio import to_thread as in_thread
from contextlib import aclosing

__all__ = ["aclosing", "in_thread", "sleep"]
