from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from jobs.models import Input
from tests.support.pictures import LIMITS, bad_pictures, good_pictures, photo, samples
from worker.images import BadImage, decode
from worker.preprocess import book

WANTED = Input(channels=1, height=28, width=28)
SHIRT = samples()["0007-shirt.png"]


def the_books_own_lines(upload: bytes) -> np.ndarray:
    image = Image.open(BytesIO(upload))
    image = image.convert("L").resize((28, 28))
    return (255 - np.array(image)) / 255


@pytest.mark.parametrize("kind", [kind for kind in good_pictures(SHIRT) if kind != "16-bit PNG"])
def test_book_is_exactly_what_the_book_has(kind: str) -> None:
    upload = good_pictures(SHIRT)[kind]
    prepared = book(decode(upload, LIMITS), WANTED)
    assert (prepared.shape, prepared.dtype) == ((1, 28, 28), np.float32)
    np.testing.assert_allclose(prepared[0], the_books_own_lines(upload), rtol=0, atol=1e-7)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    upload = good_pictures(SHIRT)["16-bit PNG"]
    np.testing.assert_array_equal(book(decode(upload, LIMITS), WANTED), book(decode(SHIRT, LIMITS), WANTED))


@pytest.mark.parametrize("kind", bad_pictures(SHIRT))
def test_a_bad_picture_has_its_code(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    with pytest.raises(BadImage) as raised:
        decode(upload, LIMITS)
    assert raised.value.code == code


def test_pixels_are_counted_before_they_are_decoded() -> None:
    upload = good_pictures(SHIRT)["RGB PNG"]
    width, height = photo(SHIRT).size
    assert decode(upload, replace(LIMITS, pixels_max=width * height)).size == (width, height)
    with pytest.raises(BadImage):
        decode(upload, replace(LIMITS, pixels_max=width * height - 1))


def test_more_frames_may_be_allowed_and_the_first_is_taken() -> None:
    upload, _ = bad_pictures(SHIRT)["GIF with many frames"]
    image = decode(upload, replace(LIMITS, frames_max=50))
    assert image.convert("L").getpixel((0, 0)) == 0
