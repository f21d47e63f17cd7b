"""Attacks that take all that owners share: streams, open jobs, bytes of uploads and of records."""

from collections.abc import Callable
from functools import partial

from bench.client import request
from bench.hostile.target import Target, in_threads, many_connections, post
from tests.support.archives import make_tar
from tests.support.processes import ROOT

TAR = "application/x-tar"
PNG = "image/png"
STREAMS = 300  # more than one API process serves
UNFINISHED, UNFINISHED_BYTES = 200, 4 << 20
_IMAGE_BYTES = 1 << 20


def padded_image(size: int = _IMAGE_BYTES) -> bytes:
    """A valid picture of many bytes."""
    image: bytes = (ROOT / "tests/data/0000-ankle-boot.png").read_bytes()
    return image + bytes(size - len(image))


def begin_upload(media_type: str, size: int, data: bytes, target: Target) -> bytes:
    """A request that lacks the end of its body."""
    headers = {"Content_Type": media_type, "Content_Length": str(size), "Authorization": target.authorization}
    return request("POST", "/v1/jobs", b"", **headers) + data


def idle_uploads(target: Target) -> None:
    """Tars that begin and do not go on."""
    many_connections(
        STREAMS, begin_upload(TAR, 1 << 20, make_tar({"a.png": b"no picture"})[:1024], target), b"\0", target
    )


def unfinished_images(target: Target) -> None:
    """Images that lack their end."""
    begin = begin_upload(PNG, UNFINISHED_BYTES, bytes(UNFINISHED_BYTES - (64 << 10)), target)
    many_connections(UNFINISHED, begin, b"\0" * 200, target)


def event_streams(target: Target) -> None:
    """Follow one open job on many connections."""
    status, path = post("/v1/jobs?open=true", b"", {}, target)
    assert status == 202, status
    follow = request("GET", f"{path}/events", b"", Authorization=target.authorization)
    many_connections(STREAMS, follow, b"", target)


def submits(path: str, media_type: str, make: Callable[[], bytes], target: Target) -> None:
    """Submit the same, as fast as it goes."""
    body = make()
    in_threads(lambda _: post(path, body, {"Content-Type": media_type}, target) and None, target)


def _tar_of_images() -> bytes:
    tar: bytes = make_tar({f"{n}.png": padded_image() for n in range(8)})
    return tar


def _tar_of_records() -> bytes:
    tar: bytes = make_tar({f"{n:05}{'x' * 200}.png": b"no picture" for n in range(5000)})
    return tar


ATTACKS_ON_SHARES: dict[str, Callable[[Target], None]] = {
    f"{STREAMS} uploads that do not go on": idle_uploads,
    f"{UNFINISHED} images that lack their end": unfinished_images,
    f"{STREAMS} event streams": event_streams,
    "open jobs without images": partial(submits, "/v1/jobs?open=true", PNG, bytes),
    "images that fill the interactive lane": partial(submits, "/v1/jobs?lane=interactive", TAR, _tar_of_images),
    "results that fill the records": partial(submits, "/v1/jobs", TAR, _tar_of_records),
}
