import struct
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
import pi_heif
import pytest
from PIL import AvifImagePlugin, Image, ImageOps

from jobs.codec import pack_outcomes, unpack_outcomes
from jobs.model_manifest import Input, Preprocessing
from jobs.records import Failure
from tests.support.pictures import LIMITS, OTHER_FORMATS, bad_pictures, encode, good_pictures, heic, photo, samples
from tests.support.processes import ROOT
from worker.inference.images.decode import decode
from worker.inference.images.limits import DecodeError, ImageLimits
from worker.inference.images.pixels import DecodeHints
from worker.inference.images.preprocess import BOOK, FMNIST, RESIZE_OVERSIZE, preprocessor_for
from worker.inference.packages.load import load_package
from worker.inference.settings import InferenceSettings

INPUT = Input(channels=1, height=28, width=28)
SHIRT = samples()["0007-shirt.png"]


def book(upload: bytes, limits: ImageLimits = LIMITS) -> np.ndarray:
    """The network's input for an upload, in mode `book`."""
    pixels = BOOK.to_input_size(decode(upload, limits, BOOK.decode_hints(INPUT)), INPUT)
    return BOOK.to_floats(pixels[np.newaxis, ..., np.newaxis]).transpose(0, 3, 1, 2)[0]


def the_books_own_lines(path: Path) -> np.ndarray:
    x = cv2.imread(str(path), 0)
    x = cv2.resize(x, (28, 28))
    x = 255 - x
    return x / 255


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encode(photo(SHIRT), "JPEG", exif=exif)


OPENCV_LACKS = {kind for kind in good_pictures(SHIRT) if {"HEIC", "AVIF", "GIF", "TIFF"} & set(kind.split())}


@pytest.mark.parametrize("kind", [*sorted(good_pictures(SHIRT).keys() - OPENCV_LACKS), "turned JPEG", "large JPEG"])
def test_book_is_exactly_the_books_own_code(kind: str, tmp_path: Path) -> None:
    more = {"turned JPEG": turned(6), "large JPEG": encode(photo(SHIRT, size=(1600, 1200)), "JPEG", quality=85)}
    upload = (good_pictures(SHIRT) | more)[kind]
    path = tmp_path / "picture"
    path.write_bytes(upload)
    prepared = book(upload)
    assert (prepared.shape, prepared.dtype) == ((1, 28, 28), np.float32)
    np.testing.assert_allclose(prepared[0], the_books_own_lines(path), rtol=0, atol=1e-7)


@pytest.mark.parametrize("orientation", range(9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_a_picture_is_turned_as_its_exif_data_says(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo(SHIRT, size=(60, 40))
    upload = encode(stored, kind, exif=exif, **({"lossless": True} if kind == "WEBP" else {}))
    expected = ImageOps.exif_transpose(Image.open(BytesIO(upload))).convert("RGB")
    np.testing.assert_array_equal(decode(upload, LIMITS), np.asarray(expected))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_heic_is_turned_once(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = photo(SHIRT, size=(64, 48))
    upright = ImageOps.exif_transpose(Image.open(BytesIO(encode(stored, "PNG", exif=exif)))).convert("RGB")
    pixels = decode(heic(stored, exif=exif.tobytes(), quality=100), LIMITS)
    assert np.abs(pixels.astype(int) - np.asarray(upright)).mean() < 4


@pytest.mark.parametrize("kind", ["HEIC", "AVIF", "TIFF"])
def test_a_format_that_is_turned_off_is_named(kind: str) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(good_pictures(SHIRT)[kind], replace(LIMITS, formats=frozenset()))
    assert (raised.value.code, raised.value.found) == ("unsupported_format", kind)


@pytest.mark.parametrize("off", ["heic", "avif", "tiff"])
def test_an_error_names_the_formats_that_are_on(off: str) -> None:
    formats = [it for it in InferenceSettings().image_formats if it != off]
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", ImageLimits.of(InferenceSettings(image_formats=formats)))
    (failure,) = classifier.classify([good_pictures(SHIRT)[off.upper()]], [1])
    assert isinstance(failure, Failure)
    first, last = sorted(it.upper() for it in formats)
    assert failure.detail.endswith(f": {off.upper()}. Send JPEG, PNG, WebP, GIF, BMP, {first} or {last}.")
    assert unpack_outcomes(pack_outcomes("m@1", [failure])) == ("m@1", [failure])


@pytest.mark.parametrize("kind", OTHER_FORMATS)
def test_a_format_that_is_not_decoded_is_named(kind: str) -> None:
    with pytest.raises(DecodeError) as raised:
        decode(bad_pictures(SHIRT)[kind][0], LIMITS)
    assert (raised.value.code, raised.value.found) == ("unsupported_format", kind)
    detail = Failure(raised.value.code, raised.value.found, LIMITS.taken).detail
    assert detail.endswith(f": {kind}. Send JPEG, PNG, WebP, GIF, BMP, AVIF, HEIC or TIFF.")


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    upload = good_pictures(SHIRT)["16-bit PNG"]
    np.testing.assert_array_equal(book(upload), book(SHIRT))
    np.testing.assert_array_equal(decode(upload, LIMITS), decode(SHIRT, LIMITS))


def test_a_transparent_level_of_sixteen_bits_is_white_and_no_other_is() -> None:
    levels = np.arange(0, 65_536, 256, dtype=np.uint16).reshape(16, 16)
    image = decode(encode(Image.fromarray(levels), "PNG", transparency=512), LIMITS, FMNIST.decode_hints(INPUT))
    expected = np.round(levels / 257)
    expected[levels == 512] = 255
    assert np.abs(image - expected).max() <= 1


@pytest.mark.parametrize("kind", bad_pictures(SHIRT))
def test_a_bad_image_has_its_code(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    with pytest.raises(DecodeError) as raised:
        decode(upload, LIMITS)
    assert raised.value.code == code


def test_decoders_have_one_thread() -> None:
    """A worker has a process for each core."""
    assert cv2.getNumThreads() == 1
    assert pi_heif.options.DECODE_THREADS == 1
    assert AvifImagePlugin.DEFAULT_MAX_THREADS == 1


def test_pixels_are_counted_before_they_are_decoded() -> None:
    upload = good_pictures(SHIRT)["RGB PNG"]
    width, height = photo(SHIRT).size
    assert decode(upload, replace(LIMITS, pixels_max=width * height)).shape == (height, width, 3)
    with pytest.raises(DecodeError):
        decode(upload, replace(LIMITS, pixels_max=width * height - 1))


def test_if_more_frames_are_allowed_the_first_is_decoded() -> None:
    upload, _ = bad_pictures(SHIRT)["GIF with many frames"]
    image = decode(upload, replace(LIMITS, frames_max=50))
    assert image.max() == 0


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
    result = book(encode(palette, "PNG", transparency=transparency))
    np.testing.assert_array_equal(result, book(encode(palette, "PNG")))


def test_a_palette_image_without_a_palette_is_damaged() -> None:
    png = encode(photo(SHIRT).convert("P"), "PNG", transparency=3)
    start = png.index(b"PLTE") - 4
    end = start + 12 + int.from_bytes(png[start : start + 4], "big")
    with pytest.raises(DecodeError) as raised:
        decode(png[:start] + png[end:], LIMITS)
    assert raised.value.code == "corrupt_image"


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


GRAY = replace(preprocessor_for(Preprocessing(mode="resize"), INPUT), oversize=RESIZE_OVERSIZE)


@pytest.mark.parametrize("kind", jpegs_for_a_comparison())
def test_a_large_jpeg_at_a_reduced_scale_differs_by_two_levels_of_brightness_at_most(kind: str) -> None:
    upload = jpegs_for_a_comparison()[kind]
    whole, reduced = decode(upload, LIMITS), decode(upload, LIMITS, GRAY.decode_hints(INPUT))
    assert whole.shape[1] > reduced.shape[1] >= 3 * INPUT.width
    assert whole.shape[0] > reduced.shape[0] >= 3 * INPUT.height
    difference = GRAY.to_input_size(reduced, INPUT).astype(int) - GRAY.to_input_size(whole, INPUT)
    assert np.abs(difference).max() < 2.5
    assert np.abs(difference).mean() < 0.4


@pytest.mark.parametrize("size", [(28, 28), (84, 84), (167, 400), (400, 167)])
def test_a_jpeg_less_than_six_times_the_input_size_is_decoded_at_full_scale(size: tuple[int, int]) -> None:
    upload = encode(photo(SHIRT).resize(size), "JPEG")
    reduced = decode(upload, LIMITS, GRAY.decode_hints(INPUT))
    assert reduced.shape == (size[1], size[0], 3)
    np.testing.assert_array_equal(reduced, decode(upload, LIMITS))


def test_colours_are_kept_at_a_reduced_scale_if_needed() -> None:
    upload = encode(photo(SHIRT), "JPEG")
    assert decode(upload, LIMITS, DecodeHints(84, 84, colours=True)).shape == (120, 160, 3)
    assert decode(upload, LIMITS, DecodeHints(84, 84, colours=False)).shape == (120, 160)


def test_a_turned_jpeg_is_reduced_by_its_size_as_displayed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upload = encode(photo(SHIRT, size=(400, 100)), "JPEG", exif=exif)
    assert decode(upload, LIMITS, DecodeHints(50, 200)).shape == (200, 50, 3)


def test_limits_apply_to_the_jpeg_at_full_scale() -> None:
    upload = encode(photo(SHIRT), "JPEG")
    for limits in (replace(LIMITS, pixels_max=320 * 240 - 1), replace(LIMITS, side_pixels_max=319)):
        with pytest.raises(DecodeError) as raised:
            decode(upload, limits, GRAY.decode_hints(INPUT))
        assert raised.value.code == "too_many_pixels"


@pytest.mark.parametrize("kind", ["truncated JPEG", "JPEG with many scans"])
def test_a_bad_jpeg_has_the_same_code_at_a_reduced_scale(kind: str) -> None:
    upload, code = bad_pictures(SHIRT)[kind]
    with pytest.raises(DecodeError) as raised:
        decode(upload, LIMITS, GRAY.decode_hints(INPUT))
    assert raised.value.code == code


@pytest.mark.parametrize("size", [(1, 65_535), (65_535, 1), (3, 30_000)])
def test_the_centre_of_a_very_long_image_takes_no_memory_for_its_ends(size: tuple[int, int]) -> None:
    input_spec = Input(channels=3, height=224, width=224)
    preprocessor = preprocessor_for(Preprocessing(mode="center_crop", shorter_side=256), input_spec)
    picture = np.full((size[1], size[0], 3), (200, 100, 50), np.uint8)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak VmHWM
    before = resident_bytes("VmRSS")
    result = preprocessor.to_input_size(picture, input_spec)
    assert resident_bytes("VmHWM") - before < 100 << 20
    assert result.shape == (224, 224, 3)
    assert np.unique(result.reshape(-1, 3), axis=0).tolist() == [[200, 100, 50]]


@pytest.mark.parametrize(("shorter_side", "is_reduced"), [(1400, False), (224, True), (None, True)])
def test_a_jpeg_is_not_decoded_at_a_smaller_size_than_it_is_resized_to(
    shorter_side: int | None, *, is_reduced: bool
) -> None:
    input_spec = Input(channels=3, height=224, width=224)
    preprocessor = preprocessor_for(Preprocessing(mode="center_crop", shorter_side=shorter_side), input_spec)
    checkered = Image.fromarray(np.indices((1400, 1400)).sum(axis=0).astype(np.uint8) % 2 * 255).convert("RGB")
    image = decode(encode(checkered, "JPEG", quality=95), LIMITS, preprocessor.decode_hints(input_spec))
    assert (image.shape[1] < 1400) == is_reduced
