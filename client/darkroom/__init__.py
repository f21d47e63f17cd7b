"""The Python client of Darkroom, a queue-based image classification service."""

from typing import TYPE_CHECKING

from darkroom._sync.client import Darkroom
from darkroom._sync.job import Job
from darkroom.errors import ApiError, DarkroomError, ItemFailed, Unreachable, WaitTimeout
from darkroom.images import Image
from darkroom.records import Counts, Item, ItemError, Model, Progress, Ranked, Server

if TYPE_CHECKING:
    from darkroom._async.client import AsyncDarkroom
    from darkroom._async.job import AsyncJob

__all__ = [
    "ApiError",
    "AsyncDarkroom",
    "AsyncJob",
    "Counts",
    "Darkroom",
    "DarkroomError",
    "Image",
    "Item",
    "ItemError",
    "ItemFailed",
    "Job",
    "Model",
    "Progress",
    "Ranked",
    "Server",
    "Unreachable",
    "WaitTimeout",
]


def __getattr__(name: str) -> object:
    """Loads the asynchronous client when it is asked for, and asyncio with it."""
    if name not in ("AsyncDarkroom", "AsyncJob"):
        raise AttributeError(f"module 'darkroom' has no attribute {name!r}")
    from darkroom._async import client  # noqa: PLC0415 - see above

    return getattr(client, name)
