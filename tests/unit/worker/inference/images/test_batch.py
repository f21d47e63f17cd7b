"""A batch's pictures on their sheet: each is what it is alone, whatever its neighbours are."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest

from jobs.model_manifest import Input
from tests.support.hostile import damaged, repair_png
from tests.support.pictures import LIMITS, bad_pictures, good_pictures, png, samples
from worker.inference.images import batch as module
from worker.inference.images.batch import ImageBatch
from worker.inference.images.decode import DecodeError, decode
from worker.inference.images.preprocess import BOOK, Mode

WANTED = Input(channels=1, height=28, width=28)
SHIRT = samples()["0007-shirt.png"]


def book_alone(upload: bytes) -> np.ndarray:
    """What a network gets of an upload, without a sheet."""
    picture = BOOK.picture(decode(upload, LIMITS, BOOK.needed(WANTED)), WANTED)
    return np.divide(255 - np.asarray(picture), 255, dtype=np.float32)[np.newaxis]


def outcome(call: Callable[[], Any]) -> Any:
    """What a call gives, or the code that the item gets."""
    try:
        return call()
    except DecodeError as error:
        return error.code


def test_each_picture_of_a_batch_is_what_it_is_alone() -> None:
    uploads = [*samples().values(), *good_pictures(SHIRT).values()]
    sheet = ImageBatch(BOOK, WANTED, len(uploads) + 3)
    for upload in uploads:
        sheet.add(upload, LIMITS)
    inputs = sheet.inputs()
    assert (inputs.shape, inputs.dtype) == ((len(uploads), 1, 28, 28), np.float32)
    np.testing.assert_array_equal(inputs, [book_alone(upload) for upload in uploads])


@pytest.mark.parametrize("kind", bad_pictures(SHIRT))
def test_a_bad_picture_has_its_code_and_takes_no_place(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    sheet = ImageBatch(BOOK, WANTED, 2)
    with pytest.raises(DecodeError) as raised:
        sheet.add(upload, LIMITS)
    assert raised.value.code == code
    sheet.add(SHIRT, LIMITS)
    np.testing.assert_array_equal(sheet.inputs(), [book_alone(SHIRT)])


def test_a_picture_shows_nothing_of_a_damaged_one_before_it() -> None:
    white = zlib.compress(bytes((0, *[255] * 28)) * 28, 0)
    whole = png(28, 28, white)
    cut = png(28, 28, white[:-40])
    short = png(28, 28, zlib.compress(bytes((0, *[7] * 28)) * 3))  # the stream ends early: for Pillow all else is black
    sheet = ImageBatch(BOOK, WANTED, 2)
    sheet.add(whole, LIMITS)
    with pytest.raises(DecodeError):
        sheet.add(cut, LIMITS)
    sheet.add(short, LIMITS)
    np.testing.assert_array_equal(sheet.inputs(), [book_alone(whole), book_alone(short)])


def test_damaged_pictures_of_any_kind_are_what_they_are_alone() -> None:
    random, wholes = Random(5), list(samples().values())
    sheet, expected = ImageBatch(BOOK, WANTED, 500), list[np.ndarray]()
    for number in range(500):
        data = bytearray(random.choice(wholes)) if number % 4 == 0 else damaged(random, random.choice(wholes), wholes)
        repair_png(data)
        alone = outcome(lambda upload=bytes(data): book_alone(upload))
        added = outcome(lambda upload=bytes(data): sheet.add(upload, LIMITS))
        if isinstance(alone, str):
            assert added == alone
        else:
            expected.append(alone)
    assert 125 < len(expected) < 400
    np.testing.assert_array_equal(sheet.inputs(), expected)


def test_a_plain_picture_is_drawn_without_a_detour_but_not_before_its_limits_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(module, "decode")
    sheet = ImageBatch(BOOK, WANTED, 1)
    for limits in (replace(LIMITS, pixels_max=783), replace(LIMITS, side_pixels_max=27)):
        with pytest.raises(DecodeError) as raised:
            sheet.add(SHIRT, limits)
        assert raised.value.code == "too_many_pixels"
    sheet.add(SHIRT, LIMITS)
    np.testing.assert_array_equal(sheet.inputs(), [book_alone(SHIRT)])


def test_a_mode_of_another_kind_gets_its_pictures_in_its_own_way() -> None:
    colours = Mode(
        lambda image, wanted: image.convert("RGB").resize((wanted.width, wanted.height)),
        lambda pixels: (pixels / 255).astype(np.float32),
    )
    inverted = Mode(lambda image, _: image.point(lambda value: 255 - value), lambda pixels: pixels.astype(np.float32))
    colour, gray = Input(channels=3, height=20, width=30), WANTED

    sheet = ImageBatch(colours, colour, 2)
    sheet.add(SHIRT, LIMITS)
    sheet.add(good_pictures(SHIRT)["RGB PNG"], LIMITS)
    inputs = sheet.inputs()
    assert inputs.shape == (2, 3, 20, 30)
    seen = decode(good_pictures(SHIRT)["RGB PNG"], LIMITS).resize((30, 20))
    np.testing.assert_allclose(inputs[1], np.asarray(seen).transpose(2, 0, 1) / 255, rtol=0, atol=1e-6)

    sheet = ImageBatch(inverted, gray, 1)
    sheet.add(SHIRT, LIMITS)
    np.testing.assert_array_equal(sheet.inputs()[0, 0], 255 - np.asarray(decode(SHIRT, LIMITS)).astype(np.float32))
