"""Syntax checks of URLs. The address that a URL resolves to is checked when it is fetched."""

import re
from typing import NamedTuple
from urllib.parse import urlsplit

URL_CHARACTERS_MAX = 2048
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f-\x9f\\]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII)
_S3 = "s3://"


class S3Url(NamedTuple):
    """`s3://bucket/key`. The key is not percent-decoded, as in S3 tools."""

    bucket: str
    key: str

    @property
    def is_prefix(self) -> bool:
        """Whether the URL names all objects below it rather than one object."""
        return not self.key or self.key.endswith("/")

    def __str__(self) -> str:
        return f"{_S3}{self.bucket}/{self.key}"


def is_web_url(url: str) -> bool:
    """Whether this is an http or https URL with a host, and without credentials, spaces or control characters."""
    if len(url) > URL_CHARACTERS_MAX or _UNPRINTABLE.search(url):
        return False
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return False
    return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc and port != 0


def s3_url(url: str) -> S3Url | None:
    """The parts of an s3 URL, or None if this is not a valid one."""
    if len(url) > URL_CHARACTERS_MAX or not url.startswith(_S3) or _CONTROL.search(url):
        return None
    bucket, _, key = url.removeprefix(_S3).partition("/")
    if not _BUCKET.fullmatch(bucket) or ".." in bucket or not _is_path(key):
        return None
    return S3Url(bucket, key)


def _is_path(key: str) -> bool:
    """Whether obstore accepts the key. S3 accepts any key, but obstore would normalize some to another path."""
    return not key or not {"", ".", ".."}.intersection(key.removesuffix("/").split("/"))
