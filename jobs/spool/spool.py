"""What a place for large uploads does: a folder (`folder.py`) or an S3 bucket (`bucket.py`). All calls block."""

import logging
from collections.abc import Iterator, Sequence
from typing import Protocol

from jobs.errors import SettingsError
from jobs.spool.names import Pointer

log = logging.getLogger(__name__)


class SpoolFull(Exception):
    """There is no space left. Nothing was written."""


class SpoolAway(OSError):
    """The place cannot be reached: nothing is known of the uploads in it."""


class SpoolNotMarked(SettingsError):
    """The place is not one that the API has marked as this store's: not yet, or it is another one than the API's."""

    def __init__(self, place: object) -> None:
        super().__init__(
            f"UPLOADS_URL: {place} is not where the API of this Redis keeps uploads. A folder must be shared by all "
            "hosts; else use s3://bucket/prefix, or redis:, for API and workers alike (docs/DEPLOYMENT.md)"
        )


class Spool(Protocol):
    """A name is used once: an upload is written whole, or is not referred to."""

    pass_seconds: float
    """Least seconds between two times that all names are looked at."""

    def check(self, store: str | None, *, is_new: bool = True, may_mark: bool = True) -> None:
        """Make the place ready. `store` identifies the store that uses it; None if that is not known yet.

        Only a place that `is_new` is marked as this store's; another that lacks the mark is not the one that was in
        use. Workers do not mark: on another host, a folder of the same name would pass for the API's.

        Raises:
            SettingsError: it cannot be used, or holds another store's uploads.
            SpoolNotMarked: it has no mark, and may get none here.
            SpoolAway
        """

    def room_bytes(self) -> int:
        """How much may be written; negative if the reserve is used. Raises OSError if the place is away."""

    def write(self, name: str, data: bytes) -> Pointer:
        """Write an upload. After a `commit` it is there after a power cut, too.

        Raises:
            SpoolFull
            OSError: the place cannot be written.
        """

    def commit(self) -> None:
        """Make sure that the names of all uploads that are written by now last, too. Raises OSError."""

    def read(self, pointer: Pointer) -> bytes | None:
        """The upload's bytes, or None if it is lost or damaged.

        Raises:
            SpoolAway
        """

    def delete(self, names: Sequence[str]) -> None:
        """No effect on names that are gone already. Raises OSError."""

    def names(self) -> Iterator[str]:
        """The names of all uploads, and of whatever else lies among them. Raises OSError."""


def checked(pointer: Pointer, data: bytes | None) -> bytes | None:
    """What was found for a pointer, or None, with a line in the log, if it is gone or damaged."""
    if data is None:
        log.warning("an upload is lost: %s is gone", pointer.name)
    elif Pointer.to(pointer.name, data) != pointer:
        log.warning("an upload is damaged: %s", pointer.name)
        return None
    return data
