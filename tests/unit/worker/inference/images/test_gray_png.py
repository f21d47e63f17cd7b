"""Plain gray PNGs take a short way to their pixels, and come to what the long way, Pillow's own, comes to."""

import zlib
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from random import Random

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from tests.support.hostile import damaged, repair_png
from tests.support.pictures import LIMITS, encode, good_pictures, photo, png, png_chunk, samples
from worker.inference.images import decode as images
from worker.inference.images.decode import DecodeError, decode
from worker.inference.images.gray_png import draw_plain_gray, plain_gray_size

SHIRT = samples()["0007-shirt.png"]
SIZES = ((1, 1), (1, 9), (9, 1), (28, 28), (31, 17), (300, 200))


def filtered(width: int, height: int, random: Random, filters: tuple[int, ...]) -> bytes:
    """A picture of noise, each of its rows stored by one of these filters."""
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


def as_pillow_has_it(upload: bytes) -> bytes | str:
    """The pixels, or the code of what it does not open."""
    try:
        with Image.open(BytesIO(upload), formats=("PNG",)) as image:
            assert image.mode == "L"
            return image.tobytes()
    except Exception:
        return "corrupt_image"


@pytest.fixture
def no_long_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(images, "_load")


@pytest.mark.usefixtures("no_long_way")
def test_plain_gray_pictures_have_pillows_pixels_and_go_the_short_way() -> None:
    for upload in plain_pictures():
        for given in (upload, memoryview(b"x" + upload + b"x")[1:-1]):
            image = decode(given, LIMITS)
            assert (image.mode, image.tobytes()) == ("L", as_pillow_has_it(upload))


@pytest.mark.parametrize("kind", [kind for kind in good_pictures(SHIRT) if kind != "gray PNG"])
def test_other_pictures_are_not_taken_for_plain_gray_ones(kind: str) -> None:
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
    assert plain_gray_size(whole[:29] + b"\0\0\0\0" + whole[33:]) is None, "its header's checksum is wrong"
    assert all(plain_gray_size(whole[:length]) is None for length in range(len(whole)))


@pytest.mark.parametrize("limits", [replace(LIMITS, pixels_max=783), replace(LIMITS, side_pixels_max=27)])
def test_its_size_is_looked_at_before_its_pixels(monkeypatch: pytest.MonkeyPatch, limits: images.ImageLimits) -> None:
    monkeypatch.delattr(images, "draw_plain_gray")
    with pytest.raises(DecodeError) as raised:
        decode(SHIRT, limits)
    assert raised.value.code == "too_many_pixels"


def test_a_header_that_claims_too_much_costs_nothing() -> None:
    with pytest.raises(DecodeError) as raised:
        decode(png(50_000, 50_000, zlib.compress(bytes(1000))), LIMITS)
    assert raised.value.code == "too_many_pixels"


def test_damaged_pixels_are_as_damaged_as_for_pillow(capfd: pytest.CaptureFixture[str]) -> None:
    rows = filtered(28, 28, Random(3), (0, 1, 2, 3, 4))
    whole = zlib.compress(rows)
    damages = {
        "no pixels at all": b"",
        "cut off": whole[:300],
        "no zlib stream": bytes(300),
        "a filter that there is not": zlib.compress(b"\x09" + rows[1:]),
        "rows missing, the stream ended": zlib.compress(rows[: 29 * 11]),
        "half a row missing, the stream ended": zlib.compress(rows[:-14]),
        "more rows than there are": zlib.compress(rows * 2),
        "a wrong checksum of the stream": whole[:-1] + bytes((whole[-1] ^ 1,)),
    }
    for name, data in damages.items():
        upload = png(28, 28, data)
        assert plain_gray_size(upload) == (28, 28)
        assert outcome(upload) == as_pillow_has_it(upload), name
        is_drawn = draw_plain_gray(upload, Image.new("L", (28, 28)), (0, 0, 28, 28))
        assert is_drawn == isinstance(outcome(upload), bytes), name
    assert outcome(png(28, 28, damages["cut off"])) == "corrupt_image"
    assert capfd.readouterr() == ("", "")


def test_damage_of_any_kind_comes_to_the_same_pixels_or_none() -> None:
    random, wholes, short = Random(21), list(plain_pictures()), 0
    for _ in range(3000):
        data = damaged(random, random.choice(wholes), wholes)
        repair_png(data)
        upload = bytes(data)
        size = plain_gray_size(upload)
        if size is not None and max(size) < 1000:
            short += 1
            assert outcome(upload) == as_pillow_has_it(upload)
    assert short > 300


def test_a_picture_with_notes_goes_the_long_way_to_the_same_pixels() -> None:
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Title", "a shirt")
    gray = Image.open(BytesIO(SHIRT))
    upload = encode(gray, "PNG", pnginfo=notes)
    assert plain_gray_size(upload) is None
    np.testing.assert_array_equal(np.asarray(decode(upload, LIMITS)), np.asarray(decode(SHIRT, LIMITS)))


def outcome(upload: bytes) -> bytes | str:
    """The pixels, or the code that the item gets."""
    try:
        return decode(upload, LIMITS).tobytes()
    except DecodeError as error:
        return error.code
