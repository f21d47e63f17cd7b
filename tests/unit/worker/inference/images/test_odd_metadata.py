"""Whole pixels are classified, whatever stands beside them in the file."""

import struct

import numpy as np
import pytest

from jobs.records import Failure
from tests.support.odd_pictures import (
    ORIENTATION,
    bmp_with_alpha,
    exif,
    odd_exif,
    odd_pictures,
    picture,
    turned_pictures,
)
from tests.support.pictures import LIMITS, encode, photo, samples
from tests.support.processes import ROOT
from worker.inference.images.decode import decode
from worker.inference.images.exif import UPRIGHT, orientation_of
from worker.inference.images.limits import DecodeError
from worker.inference.images.pixels import DecodeHints
from worker.inference.packages.load import load_package

TROUSER = samples()["0002-trouser.png"]
ODD = odd_pictures(TROUSER)


@pytest.mark.parametrize("name", ODD)
def test_odd_metadata_changes_no_pixel(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    odd, plain = ODD[name]
    np.testing.assert_array_equal(decode(odd, LIMITS), decode(plain, LIMITS))
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("model", ["fmnist-cnn", "fmnist-mlp"])
def test_each_has_the_class_of_its_picture(model: str) -> None:
    classifier = load_package(ROOT / "weights" / model, LIMITS)
    uploads = [odd for odd, _ in ODD.values()]
    outcomes = classifier.classify(uploads, [1] * len(uploads))
    assert len(outcomes) >= 230
    for name, outcome in zip(ODD, outcomes, strict=True):
        assert not isinstance(outcome, Failure), f"{name}: {outcome}"
        assert classifier.card.classes[outcome[0].class_index] == "Trouser", name


@pytest.mark.parametrize("name", odd_exif())
def test_odd_exif_data_does_not_turn_a_picture(name: str) -> None:
    assert orientation_of(odd_exif()[name]) == UPRIGHT


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("kind", "form"), [(3, "HH"), (4, "I")])
def test_the_orientation_is_read_beside_any_other_tag(order: str, kind: int, form: str) -> None:
    value = struct.pack(order + form, *((6, 0) if form == "HH" else (6,)))
    odd = (0x011A, 10, 1, struct.pack(order + "I", 38))
    entries = [(0x0100, 2, 9, bytes(4)), (ORIENTATION, kind, 1, value), odd]
    assert orientation_of(exif(*entries, order=order, more=b"\xb8\xff\xff\xff\1\0\0\0")) == 6


@pytest.mark.parametrize("kind", turned_pictures(TROUSER))
@pytest.mark.parametrize("book", [False, True])
def test_a_picture_is_turned_beside_a_rational_of_the_wrong_sign(kind: str, *, book: bool) -> None:
    odd, plain = turned_pictures(TROUSER)[kind]
    hints = DecodeHints(as_the_book=book)
    clockwise = np.rot90(decode(plain, LIMITS, hints), -1)
    np.testing.assert_array_equal(decode(odd, LIMITS, hints), clockwise)


@pytest.mark.parametrize("missing", [0.8, 0.5, 0.1, 0.01, 20])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("book", [False, True])
def test_a_jpeg_that_lacks_pixels_is_damaged(missing: float, *, progressive: bool, book: bool) -> None:
    whole = encode(photo(TROUSER), "JPEG", quality=95, progressive=progressive)
    lost = int(missing if missing > 1 else missing * len(whole))
    with pytest.raises(DecodeError) as raised:
        decode(whole[:-lost], LIMITS, DecodeHints(as_the_book=book))
    assert raised.value.code == "corrupt_image"


@pytest.mark.parametrize("lost", [1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_lacks_its_end_marker_is_whole(lost: int, *, progressive: bool) -> None:
    whole = encode(photo(TROUSER), "JPEG", quality=95, progressive=progressive)
    np.testing.assert_array_equal(decode(whole[:-lost], LIMITS), decode(whole, LIMITS))


def test_a_bmp_whose_width_is_negative_is_damaged() -> None:
    """Such a width would make few pixels of any number of them, whatever the limit."""
    whole = bytearray(bmp_with_alpha(picture(TROUSER), 0))
    whole[18:22] = (-1).to_bytes(4, "little", signed=True)
    with pytest.raises(DecodeError) as raised:
        decode(bytes(whole), LIMITS)
    assert raised.value.code == "corrupt_image"


@pytest.mark.parametrize("alpha", [1, 128, 254])
def test_a_bmp_with_any_alpha_is_put_on_white(alpha: int) -> None:
    pixels = np.asarray(picture(TROUSER), float)
    expected = 255 - (255 - pixels) * alpha / 255
    assert np.abs(decode(bmp_with_alpha(picture(TROUSER), alpha), LIMITS) - expected).max() <= 1
