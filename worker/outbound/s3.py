"""Images in S3."""

from functools import lru_cache

import obstore
from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
from obstore.store import S3Store

from jobs.item_codes import ItemCode
from jobs.s3 import open_bucket
from jobs.urls import S3Url
from worker.outbound.settings import FetchSettings
from worker.outbound.web import CONNECT_SECONDS

_BUCKETS_OPEN_MAX = 64
_PART_BYTES = 256 << 10
_CODES: dict[type[Exception], ItemCode] = {
    FileNotFoundError: ItemCode.FETCH_NOT_FOUND,
    PermissionDeniedError: ItemCode.FETCH_DENIED,
    UnauthenticatedError: ItemCode.FETCH_DENIED,
    ValueError: ItemCode.INVALID_URL,  # the key is no path to obstore
}


class Buckets:
    def __init__(self, settings: FetchSettings) -> None:
        self._settings = settings
        self._open = lru_cache(_BUCKETS_OPEN_MAX)(self._open_bucket)

    async def read(self, place: S3Url) -> bytes | ItemCode:
        """The object's bytes; those of one that is too large are not loaded."""
        if not self._settings.bucket_allowed(place.bucket):
            return ItemCode.FORBIDDEN_ADDRESS
        if place.is_prefix:
            return ItemCode.INVALID_URL
        try:
            found = await obstore.get_async(self._open(place.bucket), place.key)
            if found.meta["size"] > self._settings.item_bytes_max:
                return ItemCode.ITEM_TOO_LARGE
            return b"".join([part async for part in found.stream(_PART_BYTES)])
        except (BaseError, OSError, ValueError) as error:
            return _CODES.get(type(error), ItemCode.FETCH_FAILED)

    def _open_bucket(self, bucket: str) -> S3Store:
        return open_bucket(
            bucket,
            self._settings,
            connect_seconds=CONNECT_SECONDS,
            request_seconds=self._settings.fetch_seconds_max,
        )
