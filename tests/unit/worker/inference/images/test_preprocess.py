import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from jobs.model_manifest import Input, Preprocessing
from tests.support.pictures import LIMITS, bad_pictures, encode, good_pictures, photo, samples
from worker.inference.images.decode import DecodeError, DecodeHints, decode
from worker.inference.images.preprocess import BOOK, FMNIST, preprocessor_for

INPUT = Input(channels=1, height=28, width=28)
SHIRT = samples()["0007-shirt.png"]


def book(image: Image.Image) -> np.ndarray:
    """The network's input for an image, in mode `book`."""
    pixels = np.asarray(BOOK.to_input_size(image, INPUT))
    return BOOK.to_floats(pixels[np.newaxis, ..., np.newaxis]).transpose(0, 3, 1, 2)[0]


def the_books_own_lines(upload: bytes) -> np.ndarray:
    image = Image.open(BytesIO(upload))
    image = image.convert("L").resize((28, 28))
    return (255 - np.array(image)) / 255


@pytest.mark.parametrize("kind", [kind for kind in good_pictures(SHIRT) if kind != "16-bit PNG"])
def test_book_is_exactly_the_books_own_code(kind: str) -> None:
    upload = good_pictures(SHIRT)[kind]
    prepared = book(decode(upload, LIMITS))
    assert (prepared.shape, prepared.dtype) == ((1, 28, 28), np.float32)
    np.testing.assert_allclose(prepared[0], the_books_own_lines(upload), rtol=0, atol=1e-7)


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    upload = good_pictures(SHIRT)["16-bit PNG"]
    np.testing.assert_array_equal(book(decode(upload, LIMITS)), book(decode(SHIRT, LIMITS)))


def test_a_transparent_level_of_sixteen_bits_is_white_and_no_other_is() -> None:
    levels = np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16)
    image = decode(encode(Image.fromarray(levels), "PNG", transparency=512), LIMITS, FMNIST.decode_hints(INPUT))
    expected = np.round(levels / 257)
    expected[levels == 512] = 255
    assert np.abs(np.asarray(image.convert("L")) - expected).max() <= 1


@pytest.mark.parametrize("kind", bad_pictures(SHIRT))
def test_a_bad_image_has_its_code(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    with pytest.raises(DecodeError) as raised:
        decode(upload, LIMITS)
    assert raised.value.code == code


def test_pixels_are_counted_before_they_are_decoded() -> None:
    upload = good_pictures(SHIRT)["RGB PNG"]
    width, height = photo(SHIRT).size
    assert decode(upload, replace(LIMITS, pixels_max=width * height)).size == (width, height)
    with pytest.raises(DecodeError):
        decode(upload, replace(LIMITS, pixels_max=width * height - 1))


def test_if_more_frames_are_allowed_the_first_is_decoded() -> None:
    upload, _ = bad_pictures(SHIRT)["GIF with many frames"]
    image = decode(upload, replace(LIMITS, frames_max=50))
    assert image.convert("L").getpixel((0, 0)) == 0


def gif_whose_first_frame_is(width: int, height: int) -> bytes:
    """43 bytes: a screen of 10 × 10, and a frame with disposal method 2, which Pillow allocates on opening."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 10, 10, 0x80, 0, 0) + bytes(6)
    dispose = b"\x21\xf9\x04\x08" + bytes(4)
    return screen + dispose + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x02\x44\x01\x00;"


def resident_bytes(which: str) -> int:
    fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(fields[which].split()[0]) * 1024


def test_a_gif_whose_frame_is_larger_than_its_screen_takes_no_memory_for_it() -> None:
    upload = gif_whose_first_frame_is(20_000, 20_000)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak VmHWM
    before = resident_bytes("VmRSS")
    with pytest.raises(DecodeError) as raised:
        decode(upload, LIMITS)
    assert raised.value.code == "too_many_pixels"
    assert resident_bytes("VmHWM") - before < 20 << 20


@pytest.mark.parametrize("pixels_max", [5_000, 7_999])
def test_a_frame_of_up_to_twice_the_limit_has_its_code(pixels_max: int) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(gif_whose_first_frame_is(100, 80), replace(LIMITS, pixels_max=pixels_max))
    assert raised.value.code == "too_many_pixels"


@pytest.mark.parametrize("transparency", [3, bytes(range(200))])
def test_transparent_palette_colours_are_used_as_stored(transparency: int | bytes) -> None:
    palette = photo(SHIRT).convert("P")
    result = book(decode(encode(palette, "PNG", transparency=transparency), LIMITS))
    np.testing.assert_array_equal(result, book(decode(encode(palette, "PNG"), LIMITS)))


def test_transparency_without_a_palette_is_decoded() -> None:
    png = encode(photo(SHIRT).convert("P"), "PNG", transparency=3)
    start = png.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(png[start : start + 4], "big")
    assert book(decode(png[:start] + png[end:], LIMITS)).shape == (1, 28, 28)


def jpegs_for_a_comparison() -> dict[str, bytes]:
    scene, large = photo(SHIRT), photo(SHIRT, size=(1600, 1200))
    turned = Image.Exif()
    turned[0x0112] = 6
    return {kind: upload for kind, upload in good_pictures(SHIRT).items() if "JPEG" in kind} | {
        "large": encode(large, "JPEG", quality=85),
        "gray": encode(scene.convert("L"), "JPEG"),
        "with RGB components": encode(scene, "JPEG", keep_rgb=True),
        "with an EXIF rotation": encode(scene, "JPEG", exif=turned),
        "upright": encode(scene.rotate(90, expand=True), "JPEG"),
        "saturated": encode(Image.blend(scene, Image.new("RGB", scene.size, (255, 0, 0)), 0.5), "JPEG", quality=50),
    }


@pytest.mark.parametrize("kind", jpegs_for_a_comparison())
def test_a_large_jpeg_at_a_reduced_scale_differs_by_two_levels_of_brightness_at_most(kind: str) -> None:
    upload = jpegs_for_a_comparison()[kind]
    whole, reduced = decode(upload, LIMITS), decode(upload, LIMITS, BOOK.decode_hints(INPUT))
    assert whole.width > reduced.width >= 3 * INPUT.width
    assert whole.height > reduced.height >= 3 * INPUT.height
    difference = 255 * np.abs(book(reduced) - book(whole))
    assert difference.max() < 2.5
    assert difference.mean() < 0.4


@pytest.mark.parametrize("size", [(28, 28), (84, 84), (167, 400), (400, 167)])
def test_a_jpeg_less_than_six_times_the_input_size_is_decoded_at_full_scale(size: tuple[int, int]) -> None:
    upload = encode(photo(SHIRT).resize(size), "JPEG")
    reduced = decode(upload, LIMITS, BOOK.decode_hints(INPUT))
    assert (reduced.mode, reduced.size) == ("RGB", size)
    np.testing.assert_array_equal(np.asarray(reduced), np.asarray(decode(upload, LIMITS)))


def test_colours_are_kept_at_a_reduced_scale_if_needed() -> None:
    upload = encode(photo(SHIRT), "JPEG")
    reduced = decode(upload, LIMITS, DecodeHints(84, 84, colours=True, as_displayed=False))
    assert (reduced.mode, reduced.size) == ("RGB", (160, 120))


def test_limits_apply_to_the_jpeg_at_full_scale() -> None:
    upload = encode(photo(SHIRT), "JPEG")
    for limits in (replace(LIMITS, pixels_max=320 * 240 - 1), replace(LIMITS, side_pixels_max=319)):
        with pytest.raises(DecodeError) as raised:
            decode(upload, limits, BOOK.decode_hints(INPUT))
        assert raised.value.code == "too_many_pixels"


@pytest.mark.parametrize("kind", ["truncated JPEG", "JPEG with many scans"])
def test_a_bad_jpeg_has_the_same_code_at_a_reduced_scale(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    with pytest.raises(DecodeError) as raised:
        decode(upload, LIMITS, BOOK.decode_hints(INPUT))
    assert raised.value.code == code


@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (3, 30_000)])
def test_the_centre_of_a_very_long_image_takes_no_memory_for_its_ends(size: tuple[int, int]) -> None:
    input_spec = Input(channels=3, height=224, width=224)
    preprocessor = preprocessor_for(Preprocessing(mode="center_crop", shorter_side=256), input_spec)
    picture = Image.new("RGB", size, (200, 100, 50))
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak VmHWM
    before = resident_bytes("VmRSS")
    result = preprocessor.to_input_size(picture, input_spec)
    assert resident_bytes("VmHWM") - before < 100 << 20
    assert result.size == (224, 224)
    assert np.unique(np.asarray(result).reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]


@pytest.mark.parametrize(("shorter_side", "is_reduced"), [(1400, False), (224, True), (None, True)])
def test_a_jpeg_is_not_decoded_at_a_smaller_size_than_it_is_resized_to(
    shorter_side: int | None, *, is_reduced: bool
) -> None:
    input_spec = Input(channels=3, height=224, width=224)
    preprocessor = preprocessor_for(Preprocessing(mode="center_crop", shorter_side=shorter_side), input_spec)
    checkered = Image.fromarray(np.indices((1400, 1400)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    image = decode(encode(checkered, "JPEG", quality=95), LIMITS, preprocessor.decode_hints(input_spec))
    assert (image.width < 1400) == is_reduced
