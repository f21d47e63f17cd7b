"""HEIC and AVIF as phones and cameras make them."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.support.avif_files import avif_of
from tests.support.pictures import (
    LIMITS,
    branded,
    encode,
    heic,
    heif_that_claims,
    photo,
    samples,
    ten_bit_avif,
    ten_bit_heic,
)
from worker.inference.images.avif import coded_sizes
from worker.inference.images.decode import decode
from worker.inference.images.limits import DecodeError, SlowImage

PHOTO = photo(samples()["0007-shirt.png"])
OTHER = photo(samples()["0018-bag.png"])


def levels_off(upload: bytes) -> float:
    """How far the pixels are from the photo's, on average."""
    return float(np.abs(decode(upload, LIMITS).astype(int) - np.asarray(PHOTO)).mean())


@pytest.mark.parametrize("major", [b"mif1", b"miaf", b"mif2", b"phon"])
@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_compatible_brands_say_which_decoder_reads_a_file(kind: str, major: bytes) -> None:
    whole = heic(PHOTO) if kind == "HEIC" else encode(PHOTO, "AVIF")
    np.testing.assert_array_equal(decode(branded(whole, major), LIMITS), decode(whole, LIMITS))
    with pytest.raises(DecodeError) as raised:
        decode(branded(whole, major), replace(LIMITS, formats=frozenset()))
    assert (raised.value.code, raised.value.found) == ("unsupported_format", kind)


@pytest.mark.parametrize("primary", [0, 1, 2])
@pytest.mark.parametrize("kind", ["HEIC", "AVIF"])
def test_of_several_pictures_the_primary_one_is_classified(kind: str, primary: int) -> None:
    """They are no animation: `ITEM_FRAMES_MAX` has no say."""
    pictures = [OTHER.resize((64, 48)), OTHER]
    pictures.insert(primary, PHOTO)
    upload = heic(*pictures, primary_index=primary) if kind == "HEIC" else avif_of(*pictures, primary=primary)
    assert levels_off(upload) < 4


def test_a_thumbnail_is_not_the_picture() -> None:
    plain, with_thumbnails = heic(PHOTO), heic(PHOTO, thumbnails=[160, 64])
    assert len(with_thumbnails) > len(plain)
    np.testing.assert_array_equal(decode(with_thumbnails, LIMITS), decode(plain, LIMITS))
    thumbnails = [PHOTO.resize((160, 120)), PHOTO.resize((64, 48))]
    with_thumbnails = avif_of(PHOTO, *thumbnails, thumbnails=True)
    np.testing.assert_array_equal(decode(with_thumbnails, LIMITS), decode(encode(PHOTO, "AVIF"), LIMITS))


@pytest.mark.parametrize("size", [(320, 240), (33, 47), (1, 1), (1024, 3), (512, 513)])
def test_the_coded_size_of_an_avif_is_read(size: tuple[int, int]) -> None:
    """Whatever its header claims: the decoder decodes what is coded, and scales that."""
    image = PHOTO.resize(size)
    frames = encode(image, "AVIF", save_all=True, append_images=[image.rotate(180)])
    for whole in (encode(image, "AVIF"), encode(image, "AVIF", speed=10), ten_bit_avif(image), frames):
        assert coded_sizes(heif_that_claims(28, 28, whole)) == [size]
    assert coded_sizes(avif_of(image, PHOTO, PHOTO)) == [size, PHOTO.size, PHOTO.size]
    with_alpha = image.copy()
    with_alpha.putalpha(128)
    assert coded_sizes(encode(with_alpha, "AVIF")) == [size, size]


def test_an_avif_that_claims_less_than_is_coded_is_not_decoded() -> None:
    limits = replace(LIMITS, pixels_max=PHOTO.width * PHOTO.height - 1)
    with pytest.raises(DecodeError) as raised:
        decode(heif_that_claims(28, 28, encode(PHOTO, "AVIF")), limits)
    assert raised.value.code == "too_many_pixels"
    slow = replace(LIMITS, seconds_max=0.001)
    with pytest.raises(SlowImage):
        decode(heif_that_claims(28, 28, encode(PHOTO, "AVIF")), slow)


@pytest.mark.parametrize("make", [ten_bit_heic, ten_bit_avif])
def test_ten_bits_are_scaled_to_eight(make: Callable[[Image.Image], bytes]) -> None:
    assert levels_off(make(PHOTO)) < 4
