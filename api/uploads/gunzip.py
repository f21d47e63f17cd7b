"""Inflates the gzip stream of an archive as it arrives."""

import zlib
from collections.abc import Iterator

from api.uploads.archive_limits import ArchiveLimits, damaged

GZIP = b"\x1f\x8b"
_GZIP_WBITS = 31
_PACKED_PIECE_BYTES = 16 << 10  # given to zlib at a time: behind each gzip member, it copies the rest of them
_INFLATED_PIECE_BYTES = 256 << 10  # inflated at a time: a millisecond


class Gunzip:
    """Inflates a gzip stream of one or more members, a bounded piece at a time."""

    def __init__(self, limits: ArchiveLimits) -> None:
        self._limits = limits
        self._inflater = zlib.decompressobj(_GZIP_WBITS)
        self._compressed = 0
        self._inflated = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The inflated bytes, piece by piece.

        Raises:
            InvalidRequest: the stream is damaged.
            UploadTooLarge: it inflates too much.
        """
        for at in range(0, len(data), _PACKED_PIECE_BYTES):
            yield from self._inflate(data[at : at + _PACKED_PIECE_BYTES])

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        self._compressed += len(data)
        while data:
            if self._inflater.eof:
                if not data.startswith(GZIP[: len(data)]):  # padding after the last member
                    return
                self._inflater = zlib.decompressobj(_GZIP_WBITS)
            try:
                inflated = self._inflater.decompress(data, _INFLATED_PIECE_BYTES)
            except zlib.error:
                raise damaged("is damaged: its gzip stream cannot be read") from None
            self._inflated += len(inflated)
            self._limits.check_ratio(self._inflated, self._compressed)
            yield inflated
            data = self._inflater.unused_data if self._inflater.eof else self._inflater.unconsumed_tail

    def close(self) -> None:
        """Raises InvalidRequest if the stream is cut off."""
        if not self._inflater.eof:
            raise damaged("is cut off")
