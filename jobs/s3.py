"""S3 with this stack's settings: the API lists prefixes, the outbound workers read objects."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import TYPE_CHECKING

import obstore
from obstore.store import S3Store

from jobs.settings import S3Settings
from jobs.urls import S3Url

if TYPE_CHECKING:
    from obstore.store import S3Config

_PAGE = 1000  # the most that S3 returns at once
_RETRIES = 2


def open_bucket(bucket: str, settings: S3Settings, *, connect_seconds: float, request_seconds: float) -> S3Store:
    """A client of one bucket; opening it sends no request. Without keys in the settings it uses the machine's role."""
    config: S3Config = {"region": settings.s3_region, "skip_signature": settings.s3_anonymous}
    if settings.s3_endpoint_url is not None:
        config["endpoint"] = settings.s3_endpoint_url
    if settings.s3_access_key_id is not None and settings.s3_secret_access_key is not None:
        config["access_key_id"] = settings.s3_access_key_id
        config["secret_access_key"] = settings.s3_secret_access_key
    if settings.s3_session_token is not None:
        config["session_token"] = settings.s3_session_token
    return S3Store(
        bucket,
        config=config,
        client_options={
            "allow_http": settings.s3_allow_http,
            "connect_timeout": timedelta(seconds=connect_seconds),
            "timeout": timedelta(seconds=request_seconds),
        },
        retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=request_seconds)},
    )


async def list_prefix(bucket: S3Store, prefix: S3Url) -> AsyncIterator[S3Url]:
    """The objects below a prefix, in S3's order. Empty objects are skipped: they mark folders."""
    async for page in obstore.list(bucket, prefix.key or None, chunk_size=_PAGE):
        for found in page:
            if found["size"]:
                yield S3Url(prefix.bucket, found["path"])
