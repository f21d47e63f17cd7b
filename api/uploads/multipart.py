"""Multipart bodies into images, read as they arrive."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from api.settings import ApiSettings
from api.uploads.source import UploadedImage, label
from jobs.errors import InvalidRequest
from jobs.item_codes import ItemCode

_OTHER_FIELDS_MAX = 16
_FILES = "files"  # the field; parts that have a file name are taken under any name
_PARAMETERS = ("model", "top_k", "lane", "webhook_url", "open")  # as a form field, one would be passed over in silence


async def read_multipart(
    parts: AsyncIterator[bytes], settings: ApiSettings, boundary: str, field: str | None
) -> AsyncGenerator[UploadedImage]:
    if not boundary:
        raise InvalidRequest("The multipart body has no boundary in its Content-Type.")
    files = _Files(settings, field)
    parser = PushMultipartParser(
        boundary, max_segment_count=settings.job_items_max + _OTHER_FIELDS_MAX, header_charset="latin1"
    )
    try:
        with parser:
            async for data in parts:
                for event in parser.parse(data):
                    if (image := files.take(event)) is not None:
                        yield image
    except MultipartError as error:
        raise InvalidRequest(f"The multipart body is cut off or damaged: {error}") from None
    if files.count == 0:
        raise InvalidRequest(f"The multipart body has no {f'field {field!r}' if field else 'file'}.")


class _Files:
    """Collects the parser's events into images. Parts that are no file, or not the wanted field, are passed over."""

    def __init__(self, settings: ApiSettings, field: str | None) -> None:
        self.count = 0
        self._settings = settings
        self._field = field
        self._name: str | None = None
        self._parts: list[bytes] | None = None
        self._bytes = 0

    def take(self, event: MultipartSegment | bytes | None) -> UploadedImage | None:
        """An image, once its last byte has come."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif self._parts is not None and event is not None:
            self._bytes += len(event)
            if self._bytes <= self._settings.item_bytes_max:
                self._parts.append(event)
            else:
                self._parts.clear()
        elif self._parts is not None:
            parts, self._parts = self._parts, None
            too_large = self._bytes > self._settings.item_bytes_max
            return UploadedImage(self._name, ItemCode.ITEM_TOO_LARGE if too_large else b"".join(parts))
        return None

    def _begin(self, segment: MultipartSegment) -> None:
        if self._field is not None:
            wanted, most = segment.name == self._field, 1
        else:
            wanted, most = segment.filename is not None or segment.name == _FILES, self._settings.job_items_max
            if not wanted and segment.name in _PARAMETERS:
                raise InvalidRequest(f"{segment.name!r} is a parameter of the URL, not a part of the body.")
        self._parts, self._bytes, self._name = [] if wanted else None, 0, _name(segment.filename)
        self.count += wanted
        if self.count > most:
            raise InvalidRequest(f"The upload has more than {most} file{'s' if most > 1 else ''}.")


def _name(filename: str | None) -> str | None:
    """The last component of a file name."""
    if filename is None:
        return None
    text = filename.encode("latin1").decode(errors="replace")  # headers are read as latin1, for any bytes may come
    return label(re.split(r"[/\\]", text)[-1])
