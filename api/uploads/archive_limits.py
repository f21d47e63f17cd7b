"""Rules shared by tar and zip: limits, and members that are refused or skipped before their bytes are read."""

from dataclasses import dataclass
from typing import Self

from api.settings import ApiSettings
from api.uploads.source import ArchiveStats, UploadedImage, label
from jobs.errors import InvalidRequest, UploadTooLarge
from jobs.item_codes import ItemCode

_SYSTEM_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}  # written by macOS and Windows beside a user's files
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
_CHARACTER_BYTES_MAX = 4  # of UTF-8
SPOOL_BYTES_MAX = 8 << 20  # bytes of a zip that are buffered in memory; a larger zip is spooled to disk
RATIO_FLOOR_BYTES = 1 << 20  # below this unpacked size, no compression ratio does harm


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    item_bytes_max: int
    members_max: int
    inflated_bytes_max: int
    ratio_max: float
    name_bytes_max: int
    header_bytes_max: int
    header_records_max: int
    spool_bytes_max: int
    zip_bytes_max: int

    @classmethod
    def of(cls, settings: ApiSettings) -> Self:
        return cls(
            settings.item_bytes_max,
            settings.job_items_max,
            settings.archive_inflated_bytes_max,
            settings.archive_ratio_max,
            settings.archive_name_bytes_max,
            settings.archive_header_bytes_max,
            settings.archive_header_records_max,
            SPOOL_BYTES_MAX,
            settings.zip_bytes_max,
        )

    def is_bomb(self, inflated: int, compressed: int) -> bool:
        return inflated > RATIO_FLOOR_BYTES and inflated > compressed * self.ratio_max

    def check_ratio(self, inflated: int, compressed: int) -> None:
        """Of the whole archive. Raises UploadTooLarge if it unpacks to too many times its size."""
        if self.is_bomb(inflated, compressed):
            raise UploadTooLarge(f"An archive may unpack to at most {self.ratio_max:g} times its size.")


class ArchiveMembers:
    """Applies the limits to the members of one archive, in their order."""

    def __init__(self, limits: ArchiveLimits, stats: ArchiveStats) -> None:
        self._limits = limits
        self._stats = stats
        self.inflated = 0
        """Bytes unpacked so far."""
        self._count = 0
        self._name_bytes_max = limits.name_bytes_max
        self._name_characters_min = limits.name_bytes_max // _CHARACTER_BYTES_MAX  # a shorter name fits
        self._seen = set[int]()  # hashes of the names: the names of a million members would take too much memory

    def skips(self, path: str) -> bool:
        """Count a member. Returns whether it is a system file of macOS or Windows, which is not an item.

        Raises:
            UploadTooLarge: the archive has too many members.
        """
        self._count += 1
        if self._count > self._limits.members_max:
            raise UploadTooLarge(f"An archive may have at most {self._limits.members_max} entries.")
        path = _with_slashes(path)
        base = path[path.rfind("/") + 1 :]
        if base in _SYSTEM_FILES or base[:2] == "._" or ("__MACOSX/" in path and "/__MACOSX/" in f"/{path}"):
            self._stats.skipped += 1
            return True
        return False

    def refusal(self, path: str, size: int) -> ItemCode | None:
        """Why a member of this name and size is refused; None if it is not."""
        if len(path) > self._name_characters_min and len(path.encode(errors="surrogateescape")) > self._name_bytes_max:
            return ItemCode.NAME_TOO_LONG
        if path.startswith(("/", "\\")) or _has_drive(path):
            return ItemCode.ABSOLUTE_PATH
        if ".." in path and "/../" in f"/{_with_slashes(path)}/":
            return ItemCode.PARENT_PATH
        before = len(self._seen)
        self._seen.add(hash(path))
        if len(self._seen) == before:
            return ItemCode.DUPLICATE_NAME
        return ItemCode.ITEM_TOO_LARGE if size > self._limits.item_bytes_max else None

    def add_inflated(self, size: int) -> None:
        """Count unpacked bytes. Raises UploadTooLarge if the archive unpacks to too many."""
        self.inflated += size
        if self.inflated > self._limits.inflated_bytes_max:
            raise UploadTooLarge(f"An archive may unpack to at most {self._limits.inflated_bytes_max} bytes.")

    def to_image(self, path: str, data: bytes | ItemCode) -> UploadedImage:
        return UploadedImage(label(path), ItemCode.NESTED_ARCHIVE if _is_archive(data) else data)


# These search a path for characters and do not split it: a path of 4 KiB may have 2,000 folders.


def _with_slashes(path: str) -> str:
    return path.replace("\\", "/") if "\\" in path else path


def _has_drive(path: str) -> bool:
    return path[1:2] == ":" and path[0].isascii() and path[0].isalpha()


def is_tar(head: bytes) -> bool:
    return head[_TAR_MAGIC_AT : _TAR_MAGIC_AT + 5] == b"ustar"


def damaged(problem: str) -> InvalidRequest:
    return InvalidRequest(f"The archive {problem}.")


def _is_archive(data: bytes | ItemCode) -> bool:
    if isinstance(data, ItemCode):
        return False
    return data.startswith(_ARCHIVE_MAGIC) or is_tar(data)
