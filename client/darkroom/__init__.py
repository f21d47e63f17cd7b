"""The Python client of Darkroom, a queue-based image classification service."""

from darkroom.client import Darkroom, DarkroomError, Item, Job

__all__ = ["Darkroom", "DarkroomError", "Item", "Job"]
