"""The images of one upload, as the readers of all formats give them."""

import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import NamedTuple

from jobs.item_codes import ItemCode

_NAME_CHARACTERS_MAX = 255


_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class UploadedImage(NamedTuple):
    name: str | None
    data: bytes | ItemCode
    """A code says why the bytes were not kept."""


@dataclass(slots=True)
class ArchiveStats:
    """What a reader has met beside images."""

    skipped: int = 0
    """Entries that are no content, as `.DS_Store` is."""


@dataclass(slots=True)
class UploadSource:
    """The images of a request body, each as soon as it is complete."""

    images: AsyncGenerator[UploadedImage]
    tally: ArchiveStats = field(default_factory=ArchiveStats)
    alone: bool = False
    """Whether the body is one image, and so its upload one step."""
    by_reference: bool = False
    """Whether the data of each is a URL, which a worker fetches."""


def label(text: str) -> str | None:
    """A name as a label, without what does not print. It never names a file here."""
    return _UNPRINTABLE.sub("�", text)[:_NAME_CHARACTERS_MAX] or None
