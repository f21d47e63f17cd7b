"""Reads the files of a multipart body as they arrive."""

import re
from collections.abc import AsyncGenerator, AsyncIterator

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from api.settings import ApiSettings
from api.uploads.source import UploadedImage, label
from jobs.errors import InvalidRequest
from jobs.item_codes import ItemCode

_OTHER_FIELDS_MAX = 16
_FILES_FIELD = "files"  # a segment with a file name is read in any field
_PARAMETERS = (
    "model",
    "top_k",
    "lane",
    "webhook_url",
    "open",
)  # refused as form fields: ignoring one would hide a mistake


async def read_multipart(
    pieces: AsyncIterator[bytes], settings: ApiSettings, boundary: str, field: str | None
) -> AsyncGenerator[UploadedImage]:
    """Each file once its last byte has arrived; with `field`, the one file in that field.

    Raises:
        InvalidRequest: the body is damaged, has no file or too many, or has a parameter as a form field.
    """
    if not boundary:
        raise InvalidRequest("The Content-Type of the multipart body has no boundary.")
    files = _FileCollector(settings, field)
    parser = PushMultipartParser(
        boundary, max_segment_count=settings.job_items_max + _OTHER_FIELDS_MAX, header_charset="latin1"
    )
    try:
        with parser:
            async for piece in pieces:
                for event in parser.parse(piece):
                    if (image := files.collect(event)) is not None:
                        yield image
    except MultipartError as error:
        raise InvalidRequest(f"The multipart body is cut off or damaged: {error}") from None
    if files.count == 0:
        raise InvalidRequest(f"The multipart body has no {f'field {field!r}' if field else 'file'}.")


class _FileCollector:
    """Collects the parser's events into images. Ignores segments that are not files or not in the requested field."""

    def __init__(self, settings: ApiSettings, field: str | None) -> None:
        self.count = 0
        self._settings = settings
        self._field = field
        self._name: str | None = None
        self._pieces: list[bytes] | None = None  # of the current file; None while a segment is ignored
        self._bytes = 0

    def collect(self, event: MultipartSegment | bytes | None) -> UploadedImage | None:
        """Take the next event: a segment's header, some of its bytes, or its end (None). Returns a complete image."""
        if isinstance(event, MultipartSegment):
            self._begin(event)
        elif self._pieces is not None and event is not None:
            self._bytes += len(event)
            if self._bytes <= self._settings.item_bytes_max:
                self._pieces.append(event)
            else:
                self._pieces.clear()
        elif self._pieces is not None:
            pieces, self._pieces = self._pieces, None
            too_large = self._bytes > self._settings.item_bytes_max
            return UploadedImage(self._name, ItemCode.ITEM_TOO_LARGE if too_large else b"".join(pieces))
        return None

    def _begin(self, segment: MultipartSegment) -> None:
        if self._field is not None:
            is_file, files_max = segment.name == self._field, 1
        else:
            is_file, files_max = (
                segment.filename is not None or segment.name == _FILES_FIELD,
                self._settings.job_items_max,
            )
            if not is_file and segment.name in _PARAMETERS:
                raise InvalidRequest(f"{segment.name!r} is a parameter of the URL, not of the body.")
        self._pieces, self._bytes, self._name = [] if is_file else None, 0, _name(segment.filename)
        self.count += is_file
        if self.count > files_max:
            raise InvalidRequest(f"The upload has more than {files_max} file{'s' if files_max > 1 else ''}.")


def _name(filename: str | None) -> str | None:
    """The last component of a file name."""
    if filename is None:
        return None
    text = filename.encode("latin1").decode(
        errors="replace"
    )  # the parser reads headers as latin1: they may be any bytes
    return label(re.split(r"[/\\]", text)[-1])
