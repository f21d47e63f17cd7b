"""An image in a batch has the same input as alone, whatever its neighbours are."""

import zlib
from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import numpy as np
import pytest
from PIL import Image

from jobs.model_manifest import Input
from tests.support.hostile import damaged, repair_png
from tests.support.pictures import LIMITS, bad_pictures, good_pictures, png, samples
from worker.inference.images import batch as batch_module
from worker.inference.images.batch import ImageBatch
from worker.inference.images.decode import decode
from worker.inference.images.limits import DecodeError
from worker.inference.images.preprocess import BOOK, Preprocessor

INPUT = Input(channels=1, height=28, width=28)
SHIRT = samples()["0007-shirt.png"]


def book_alone(upload: bytes) -> np.ndarray:
    """The network's input for an upload, in a batch of its own."""
    batch = ImageBatch(BOOK, INPUT, 1)
    batch.add(upload, LIMITS)
    return batch.inputs()[0]


def outcome(call: Callable[[], Any]) -> Any:
    """The result of a call, or the code for the item."""
    try:
        return call()
    except DecodeError as error:
        return error.code


def test_each_image_of_a_batch_is_the_same_as_alone() -> None:
    uploads = [*samples().values(), *good_pictures(SHIRT).values()]
    batch = ImageBatch(BOOK, INPUT, len(uploads) + 3)
    for upload in uploads:
        batch.add(upload, LIMITS)
    inputs = batch.inputs()
    assert (inputs.shape, inputs.dtype) == ((len(uploads), 1, 28, 28), np.float32)
    np.testing.assert_array_equal(inputs, [book_alone(upload) for upload in uploads])


@pytest.mark.parametrize("kind", bad_pictures(SHIRT))
def test_a_bad_image_has_its_code_and_takes_no_place(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    batch = ImageBatch(BOOK, INPUT, 2)
    with pytest.raises(DecodeError) as raised:
        batch.add(upload, LIMITS)
    assert raised.value.code == code
    batch.add(SHIRT, LIMITS)
    np.testing.assert_array_equal(batch.inputs(), [book_alone(SHIRT)])


def test_an_image_shows_nothing_of_a_damaged_one_before_it() -> None:
    white = zlib.compress(bytes((0, *[255] * 28)) * 28, 0)
    whole = png(28, 28, white)
    cut = png(28, 28, white[:-40])
    short = png(28, 28, zlib.compress(bytes((0, *[7] * 28)) * 3))  # rows that it lacks are black
    batch = ImageBatch(BOOK, INPUT, 2)
    batch.add(whole, LIMITS)
    with pytest.raises(DecodeError):
        batch.add(cut, LIMITS)
    batch.add(short, LIMITS)
    np.testing.assert_array_equal(batch.inputs(), [book_alone(whole), book_alone(short)])


def test_damaged_images_of_any_kind_are_the_same_as_alone() -> None:
    random, wholes = Random(5), list(samples().values())
    batch, expected = ImageBatch(BOOK, INPUT, 500), list[np.ndarray]()
    for number in range(500):
        data = bytearray(random.choice(wholes)) if number % 4 == 0 else damaged(random, random.choice(wholes), wholes)
        repair_png(data)
        alone = outcome(lambda upload=bytes(data): book_alone(upload))
        added = outcome(lambda upload=bytes(data): batch.add(upload, LIMITS))
        if isinstance(alone, str):
            assert added == alone
        else:
            expected.append(alone)
    assert 125 < len(expected) < 400
    np.testing.assert_array_equal(batch.inputs(), expected)


def test_a_plain_gray_image_is_drawn_directly_after_its_limits_are_checked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(batch_module, "decode")
    batch = ImageBatch(BOOK, INPUT, 1)
    for limits in (replace(LIMITS, pixels_max=783), replace(LIMITS, side_pixels_max=27)):
        with pytest.raises(DecodeError) as raised:
            batch.add(SHIRT, limits)
        assert raised.value.code == "too_many_pixels"
    batch.add(SHIRT, LIMITS)
    np.testing.assert_array_equal(batch.inputs(), [book_alone(SHIRT)])


def test_a_preprocessor_of_another_kind_processes_images_in_its_own_way() -> None:
    colours = Preprocessor(
        lambda pixels, input_spec: np.asarray(
            Image.fromarray(pixels).convert("RGB").resize((input_spec.width, input_spec.height))
        ),
        lambda pixels: (pixels / 255).astype(np.float32),
    )
    inverted = Preprocessor(lambda pixels, _: 255 - pixels, lambda pixels: pixels.astype(np.float32))
    colour, gray = Input(channels=3, height=20, width=30), INPUT

    batch = ImageBatch(colours, colour, 2)
    batch.add(SHIRT, LIMITS)
    batch.add(good_pictures(SHIRT)["RGB PNG"], LIMITS)
    inputs = batch.inputs()
    assert inputs.shape == (2, 3, 20, 30)
    expected = Image.fromarray(decode(good_pictures(SHIRT)["RGB PNG"], LIMITS)).resize((30, 20))
    np.testing.assert_allclose(inputs[1], np.asarray(expected).transpose(2, 0, 1) / 255, rtol=0, atol=1e-6)

    batch = ImageBatch(inverted, gray, 1)
    batch.add(SHIRT, LIMITS)
    np.testing.assert_array_equal(batch.inputs()[0, 0], 255 - decode(SHIRT, LIMITS).astype(np.float32))
