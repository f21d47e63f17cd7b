"""Reads the files of a multipart body as they arrive."""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator
from urllib.parse import unquote

from multipart import MultipartError, MultipartSegment, PushMultipartParser

from api.settings import ApiSettings
from api.uploads.source import ArchiveStats, UploadedImage, decode_name, label, slices
from jobs.errors import InvalidRequest
from jobs.item_codes import ItemCode

_OTHER_FIELDS_MAX = 16
_SLICE_BYTES = 8 << 10  # parsed in one go: as one header over 2,000 lines, that takes 4 ms and makes no event
_TURN_EVENTS = 64  # between two turns of the event loop: less than a millisecond
_EXTENDED_FILENAME = re.compile(r";\s*filename\*\s*=\s*([\w-]+)'[\w-]*'([^\s;]*)", re.ASCII | re.IGNORECASE)
# Of RFC 5987. Python keeps every other name that it is asked for, for good, and some of its codecs are quadratic.
_CHARSETS = ("utf-8", "iso-8859-1")
_ESCAPED = re.compile(r"%(?:22|0D|0A)", re.IGNORECASE)
_FILES_FIELD = "files"  # in any field, a segment is a file if it has a file name or a type of files
_FILE_TYPES = ("image/", "application/octet-stream")
_PARAMETERS = (
    "model",
    "top_k",
    "lane",
    "webhook_url",
    "open",
)  # refused as form fields: ignoring one would hide a mistake


async def read_multipart(
    pieces: AsyncIterator[bytes], settings: ApiSettings, stats: ArchiveStats, boundary: str, field: str | None
) -> AsyncGenerator[UploadedImage]:
    """Each file once its last byte has arrived; with `field`, the one file in that field. Counts the other segments.

    Raises:
        InvalidRequest: the body is damaged, has no file, too many, one in another field, or a parameter as a field.
    """
    if not boundary:
        raise InvalidRequest("The Content-Type of the multipart body has no boundary: let your HTTP library set it.")
    files = _FileCollector(settings, stats, field)
    events = 0  # since the event loop's last turn
    parser = PushMultipartParser(
        boundary, max_segment_count=settings.job_items_max + _OTHER_FIELDS_MAX, header_charset="latin1"
    )
    try:
        with parser:
            async for piece in slices(pieces, _SLICE_BYTES):
                before = events
                for event in parser.parse(piece):
                    events += 1
                    if (image := files.collect(event)) is not None:
                        yield image
                    if events >= _TURN_EVENTS:
                        await asyncio.sleep(0)  # let other requests run
                        before = events = 0
                if events != before + 1:  # more than the next bytes of one file, or headers that have not ended
                    await asyncio.sleep(0)
                    events = 0
    except MultipartError as error:
        raise InvalidRequest(f"The multipart body is cut off or damaged: {error}") from None
    if files.count == 0:
        raise InvalidRequest(f"The multipart body has no {f'field {field!r}' if field else 'file'}: send one.")


class _FileCollector:
    """Collects the parser's events into images. Counts segments that are not files."""

    def __init__(self, settings: ApiSettings, stats: ArchiveStats, field: str | None) -> None:
        self.count = 0
        self._settings = settings
        self._stats = stats
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
        filename = _filename(segment)
        is_file = filename is not None or (segment.content_type or "").startswith(_FILE_TYPES)
        files_max = self._settings.job_items_max
        if self._field is not None:
            if is_file and segment.name != self._field:
                raise InvalidRequest(f"Send one image, in the field {self._field!r}: there is a file in another field.")
            is_file, files_max = segment.name == self._field, 1
        elif segment.name == _FILES_FIELD:
            is_file = True
        elif not is_file and segment.name in _PARAMETERS:
            raise InvalidRequest(f"Send {segment.name!r} in the URL, as ?{segment.name}=…, not as a field of the form.")
        self._pieces, self._bytes, self._name = [] if is_file else None, 0, _name(filename)
        self.count += is_file
        self._stats.skipped += not is_file
        if self.count > files_max:
            raise InvalidRequest(f"The upload has more than {files_max} file{'s' if files_max > 1 else ''}.")


def _filename(segment: MultipartSegment) -> str | None:
    """The file name as it was before it was put into the header."""
    header = segment.header("Content-Disposition") or ""
    if extended := _EXTENDED_FILENAME.search(header):  # RFC 5987: requests and others, for names that are not ASCII
        charset = extended[1].lower()
        return unquote(extended[2], charset if charset in _CHARSETS else "utf-8", "replace")
    if segment.filename is None:
        return None
    name = decode_name(segment.filename.encode("latin1"))  # headers are read as latin1: any bytes
    return _ESCAPED.sub(lambda escaped: unquote(escaped[0]), name)  # as browsers and curl escape these three


def _name(filename: str | None) -> str | None:
    """The last component of a file name."""
    return None if filename is None else label(filename.replace("\\", "/").rpartition("/")[2])
