"""Attacks by uploads: costly for the parser, large, never finished, or lists of another server's URLs."""

from collections.abc import Callable
from functools import partial
from itertools import count, cycle

import orjson

from bench.hostile.shares import TAR, begin_upload, padded_image
from bench.hostile.target import THREADS, Target, in_threads, many_connections, post, post_patiently
from tests.support.archives import make_tar
from tests.support.costly_uploads import JSON, ZIP, costly_uploads

TARS, TAR_IMAGES, IMAGE_BYTES = 64, 4, (10 << 20) - 1024
ZIPS, ZIP_BYTES = 60, 16 << 20
URLS = 5000
_ZIP_BYTES_SAID = 1 << 30
_SECONDS = 30  # for one piece of a tar, while there is no room for it


def costly(kind: str, target: Target) -> None:
    """Send the uploads of one kind whose cost is not in their bytes, one after the other."""
    found = [make() for name, make in costly_uploads().items() if name.startswith(kind)]
    turns = [cycle(found[first % len(found) :] + found[: first % len(found)]) for first in range(THREADS)]

    def attack(number: int) -> None:
        upload = next(turns[number])
        post("/v1/jobs?lane=bulk", upload.body, {"Content-Type": upload.content_type}, target)

    in_threads(attack, target)


def tars_of_large_images(target: Target) -> None:
    """As many at the same time as an API process reads, by several owners: one of them may have only half of those."""
    tar = make_tar({f"{n}.png": padded_image(IMAGE_BYTES) for n in range(TAR_IMAGES)})

    def attack(number: int) -> None:
        owner = target.authorizations[number % len(target.authorizations)]
        post_patiently("/v1/jobs", tar, {"Content-Type": TAR, "Authorization": owner}, target, _SECONDS)

    in_threads(attack, target, target.scaled(TARS))


def zips_that_stop(target: Target) -> None:
    """Their bytes are spooled to the disk, until they end."""
    start = begin_upload(ZIP, _ZIP_BYTES_SAID, b"PK\3\4" + bytes(target.scaled(ZIP_BYTES)), target)
    many_connections(target.scaled(ZIPS), start, bytes(200), target)


def urls_of_one_host(path: str, target: Target) -> None:
    """Thousands of URLs of a server, each another one."""
    number = count()

    def attack(_: int) -> None:
        urls = [f"{target.victim}{path}?{next(number)}" for _ in range(URLS)]
        post("/v1/jobs", orjson.dumps({"urls": urls}), {"Content-Type": JSON}, target)

    in_threads(attack, target)


COSTLY_UPLOADS: dict[str, Callable[[Target], None]] = {
    f"{kind}s that cost more than their bytes": partial(costly, kind) for kind in ("tar", "form", "URL", "zip")
}
LARGE_UPLOADS: dict[str, Callable[[Target], None]] = {
    f"{TARS} tars of images of 10 MiB": tars_of_large_images,
    f"{ZIPS} zips that do not go on": zips_that_stop,
}
