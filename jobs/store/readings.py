"""Reads of several round trips without a connection: the API awaits them, scrapes and `darkroom-admin` block."""

from collections.abc import Generator, Sequence
from typing import TypeVar

from jobs.store.wire import Command, Reply

T = TypeVar("T")
Reading = Generator[Sequence[Command], list[Reply], T]
"""Yields the commands of each round trip, is sent their replies, and returns what was read."""
