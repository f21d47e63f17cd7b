"""Real uploads to begin with: those of the tests."""

from collections.abc import Iterator

from tests.support.hostile import kinds

_KINDS = {
    "form": ("multipart",),
    "tar": ("ustar", "gnu", "pax", "tgz"),
    "zip": ("stored", "deflated", "zip64"),
    "urls": ("json",),
    "png": ("png",),
    "jpeg": ("jpeg",),
    "other-pictures": ("webp", "gif", "bmp"),
}
_URLS = (b"https://user@[::1%25eth0]:8/%zz?q#f", b"s3://bucket/a//b/../c", "http://größe.example/".encode())
_REPLIES = (
    b"$3\r\nabc\r\n:1\r\n$-1\r\n",
    b"*2\r\n+OK\r\n-ERR no\r\n_\r\n#t\r\n",
    b"%1\r\n+a\r\n,1.5\r\n>1\r\n+push\r\n",
)


def seeds(target: str) -> Iterator[bytes]:
    for kind in _KINDS.get(target, ()):
        yield from kinds()[kind].wholes
    yield from {"urls": _URLS, "redis-replies": _REPLIES}.get(target, ())
