"""The Python client of Darkroom, a queue-based image classification service."""

from darkroom._async.client import AsyncDarkroom
from darkroom._async.job import AsyncJob
from darkroom._sync.client import Darkroom
from darkroom._sync.job import Job
from darkroom.errors import ApiError, DarkroomError, ItemFailed, Unreachable, WaitTimeout
from darkroom.images import Image
from darkroom.records import Counts, Item, ItemError, Model, Progress, Ranked, Server

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
