"""The fast path for plain gray PNGs gives the same pixels as Pillow and OpenCV."""

import zlib
from collections.abc import Iterator
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support.hostile import damaged, repair_png
from tests.support.pictures import LIMITS, encode, good_pictures, photo, png, png_chunk, samples
from worker.inference.images.decode import decode
from worker.inference.images.gray_png import draw_plain_gray, plain_gray_size
from worker.inference.images.limits import DecodeError

SHIRT = samples()["0007-shirt.png"]
SIZES = ((1, 1), (1, 9), (9, 1), (28, 28), (31, 17), (300, 200))


def filtered(width: int, height: int, random: Random, filters: tuple[int, ...]) -> bytes:
    """The rows of an image of noise, each with one of these filter types."""
    return b"".join(bytes((random.choice(filters),)) + random.randbytes(width) for _ in range(height))


def plain_pictures() -> Iterator[bytes]:
    random = Random(8)
    yield from samples().values()
    for width, height in SIZES:
        for filters in ((0,), (1,), (2,), (3,), (4,), (0, 1, 2, 3, 4)):
            for level in (0, 1, 9):
                yield png(width, height, zlib.compress(filtered(width, height, random, filters), level))
    for size in SIZES:
        gray = photo(SHIRT).convert("L").resize(size)
        yield from (encode(gray, "PNG", optimize=optimize) for optimize in (False, True))


def pillow_outcome(upload: bytes) -> bytes | str:
    """The pixels, or the code for a PNG that Pillow does not open."""
    try:
        with Image.open(BytesIO(upload), formats=("PNG",)) as image:
            assert image.mode == "L"
            return image.tobytes()
    except Exception:
        return "corrupt_image"


def drawn(upload: bytes | memoryview) -> bytes | None:
    """The pixels, or None if the fast path does not take the image."""
    size = plain_gray_size(upload)
    if size is None:
        return None
    image = Image.new("L", size)
    return image.tobytes() if draw_plain_gray(upload, image, (0, 0, *size)) else None


def test_plain_gray_images_have_pillows_and_opencvs_pixels() -> None:
    for upload in plain_pictures():
        for given in (upload, memoryview(b"x" + upload + b"x")[1:-1]):
            assert drawn(given) == pillow_outcome(upload) == decode(given, LIMITS).tobytes()


@pytest.mark.parametrize("kind", [kind for kind in good_pictures(SHIRT) if kind != "gray PNG"])
def test_other_images_are_not_plain_gray(kind: str) -> None:
    assert plain_gray_size(good_pictures(SHIRT)[kind]) is None


def test_a_png_that_is_gray_and_more_is_not_plain() -> None:
    rows = zlib.compress(bytes(28 * 29))
    assert plain_gray_size(png(28, 28, rows)) == (28, 28)
    for more in (
        png_chunk(b"tRNS", b"\0\7"),
        png_chunk(b"gAMA", bytes(4)),
        png_chunk(b"IDAT", b""),
        png_chunk(b"acTL", bytes(8)),
    ):
        assert plain_gray_size(png(28, 28, rows, more=more)) is None
    for kind in ((4, 0, 0, 0, 0), (16, 0, 0, 0, 0), (8, 2, 0, 0, 0), (8, 0, 1, 0, 0), (8, 0, 0, 1, 0), (8, 0, 0, 0, 1)):
        assert plain_gray_size(png(28, 28, rows, kind=kind)) is None
    assert plain_gray_size(png(0, 28, rows)) is None
    whole = png(28, 28, rows)
    assert plain_gray_size(whole + b"!") is None
    assert plain_gray_size(whole[:29] + b"\0\0\0\0" + whole[33:]) is None, "wrong checksum of the header"
    assert all(plain_gray_size(whole[:length]) is None for length in range(len(whole)))


def test_a_header_with_too_large_a_size_costs_nothing() -> None:
    with pytest.raises(DecodeError) as raised:
        decode(png(50_000, 50_000, zlib.compress(bytes(1000))), LIMITS)
    assert raised.value.code == "too_many_pixels"


def test_damaged_pixels_fail_if_they_fail_in_pillow(capfd: pytest.CaptureFixture[str]) -> None:
    rows = filtered(28, 28, Random(3), (0, 1, 2, 3, 4))
    whole = zlib.compress(rows)
    damages = {
        "no pixels at all": b"",
        "cut off": whole[:300],
        "no zlib stream": bytes(300),
        "an unknown filter type": zlib.compress(b"\x09" + rows[1:]),
        "rows missing, the stream is complete": zlib.compress(rows[: 29 * 11]),
        "half a row missing, the stream is complete": zlib.compress(rows[:-14]),
        "more rows than the header says": zlib.compress(rows * 2),
        "a wrong checksum of the stream": whole[:-1] + bytes((whole[-1] ^ 1,)),
    }
    for name, data in damages.items():
        upload = png(28, 28, data)
        assert plain_gray_size(upload) == (28, 28)
        expected = pillow_outcome(upload)
        assert drawn(upload) == (None if expected == "corrupt_image" else expected), name
    assert drawn(png(28, 28, damages["cut off"])) is None
    assert outcome(png(28, 28, damages["cut off"])) == "corrupt_image"
    assert capfd.readouterr() == ("", "")


def test_damage_of_any_kind_gives_the_same_outcome_as_in_pillow() -> None:
    random, wholes, plain = Random(21), list(plain_pictures()), 0
    for _ in range(3000):
        data = damaged(random, random.choice(wholes), wholes)
        repair_png(data)
        upload = bytes(data)
        size = plain_gray_size(upload)
        if size is not None and max(size) < 1000:
            plain += 1
            expected = pillow_outcome(upload)
            assert drawn(upload) == (None if expected == "corrupt_image" else expected)
    assert plain > 300


def test_an_image_with_text_chunks_has_the_same_pixels() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "a shirt")
    gray = Image.open(BytesIO(SHIRT))
    upload = encode(gray, "PNG", pnginfo=text)
    assert plain_gray_size(upload) is None
    np.testing.assert_array_equal(np.asarray(decode(upload, LIMITS)), np.asarray(decode(SHIRT, LIMITS)))


def outcome(upload: bytes) -> bytes | str:
    """The pixels, or the code for the item."""
    try:
        return decode(upload, LIMITS).tobytes()
    except DecodeError as error:
        return error.code
