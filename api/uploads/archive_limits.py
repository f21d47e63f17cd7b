"""What tar and zip archives have in common: limits, and entries that are no images before a byte is looked at."""

import re
from dataclasses import dataclass
from typing import Self

from api.settings import ApiSettings
from api.uploads.source import ArchiveStats, UploadedImage, label
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode

_LEFTOVERS = {".DS_Store", "Thumbs.db", "desktop.ini"}
_SEPARATOR = re.compile(r"[/\\]")
_DRIVE = re.compile(r"[A-Za-z]:")
_ARCHIVE_MAGIC = (
    b"PK\x03\x04",
    b"PK\x05\x06",
    b"\x1f\x8b",
    b"7z\xbc\xaf\x27\x1c",
    b"Rar!\x1a\x07",
    b"\xfd7zXZ\x00",
    b"BZh",
    b"\x28\xb5\x2f\xfd",
)
_TAR_MAGIC_AT = 257
SPOOL_BYTES_MAX = 8 << 20  # bytes of a zip that are kept in memory; a larger zip is spooled to disk
RATIO_FLOOR_BYTES = 1 << 20  # what is smaller unpacked does no harm, whatever its ratio


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    item_bytes_max: int
    entries_max: int
    inflated_bytes_max: int
    ratio_max: float
    spool_bytes_max: int
    zip_bytes_max: int

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        return cls(
            settings.item_bytes_max,
            settings.job_items_max,
            settings.archive_inflated_bytes_max,
            settings.archive_ratio_max,
            SPOOL_BYTES_MAX,
            settings.zip_bytes_max,
        )

    def is_bomb(self, inflated: int, compressed: int) -> bool:
        return inflated > RATIO_FLOOR_BYTES and inflated > compressed * self.ratio_max


class Entries:
    """Judges the entries of one archive as they come."""

    def __init__(self, limits: ArchiveLimits, tally: ArchiveStats) -> None:
        self._limits = limits
        self._tally = tally
        self.inflated = 0
        """Bytes unpacked so far."""
        self._count = 0
        self._seen = set[int]()  # hashes of names: a million names would take too much

    def problem(self, path: str, size: int) -> ItemCode | None:
        """Why an entry is refused by its name or size, if it is."""
        if path.startswith(("/", "\\")) or _DRIVE.match(path):
            return ItemCode.ABSOLUTE_PATH
        if ".." in path and ".." in _SEPARATOR.split(path):
            return ItemCode.PARENT_PATH
        before = len(self._seen)
        self._seen.add(hash(path))
        if len(self._seen) == before:
            return ItemCode.DUPLICATE_NAME
        return ItemCode.ITEM_TOO_LARGE if size > self._limits.item_bytes_max else None

    def skips(self, path: str) -> bool:
        """Whether the entry is a leftover of macOS or Windows; those are counted.

        Raises:
            UploadTooLarge: the archive has too many entries.
        """
        self._count += 1
        if self._count > self._limits.entries_max:
            raise UploadTooLarge(f"An archive may have {self._limits.entries_max} entries.")
        *folders, base = path.split("/") if "\\" not in path else _SEPARATOR.split(path)
        if base in _LEFTOVERS or base.startswith("._") or "__MACOSX" in folders:
            self._tally.skipped += 1
            return True
        return False

    def inflate(self, size: int) -> None:
        """Count unpacked bytes. Raises UploadTooLarge where they are too many in all."""
        self.inflated += size
        if self.inflated > self._limits.inflated_bytes_max:
            raise UploadTooLarge(f"An archive may have {self._limits.inflated_bytes_max} bytes unpacked.")

    def image(self, path: str, data: bytes | ItemCode) -> UploadedImage:
        return UploadedImage(label(path), ItemCode.NESTED_ARCHIVE if _is_archive(data) else data)


def _is_archive(data: bytes | ItemCode) -> bool:
    if isinstance(data, ItemCode):
        return False
    return data.startswith(_ARCHIVE_MAGIC) or is_tar(data)


def is_tar(head: bytes) -> bool:
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


def damaged(what: str) -> InvalidRequest:
    return InvalidRequest(f"The archive {what}.")
