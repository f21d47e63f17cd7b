"""Attacks by pictures whose cost is not in their bytes: flat ones, and files of far too many parts."""

from collections.abc import Callable, Mapping
from functools import partial

from bench.hostile.target import Target, in_threads, post_patiently
from tests.support.costly_pictures import FLAT, PARTS, SIDE_PIXELS_MAX
from tests.support.costly_uploads import BOUNDARY, FORM
from tests.support.pictures import jpeg_of_many_scans, photo, samples

_FORM_IMAGES = 64  # the most that go to the interactive lane by default
_SECONDS = 10  # for one piece of a body


def form_of(image: bytes, count: int) -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'.encode()
    return (head + image + b"\r\n") * count + f"--{BOUNDARY}--\r\n".encode()


def flat_webps(target: Target) -> None:
    """Two kilobytes each, and as many pixels as a picture may have."""
    _submit(form_of(FLAT["RGB WebP without loss"](SIDE_PIXELS_MAX), target.scaled(_FORM_IMAGES)), FORM, target)


def one_of(make: Callable[[], bytes], target: Target) -> None:
    """One picture a request."""
    _submit(make(), "image/*", target)


def _submit(body: bytes, content_type: str, target: Target) -> None:
    headers = {"Content-Type": content_type, "Authorization": target.authorization}
    in_threads(lambda _: post_patiently("/v1/jobs", body, headers, target, _SECONDS) and None, target)


def _scans() -> bytes:
    jpeg: bytes = jpeg_of_many_scans(photo(samples()["0007-shirt.png"]))
    return jpeg


_MAKE: Mapping[str, Callable[[], bytes]] = {
    "JPEGs of many Exif segments": PARTS["JPEG of Exif segments"],
    "JPEGs of a hundred scans": _scans,
    "PNGs of empty chunks": PARTS["PNG of empty chunks"],
    "GIFs of one byte a block": PARTS["GIF of one byte a block"],
}

ATTACKS_BY_PICTURES: dict[str, Callable[[Target], None]] = {
    f"forms of {_FORM_IMAGES} flat WebPs": flat_webps,
    **{name: partial(one_of, make) for name, make in _MAKE.items()},
}
