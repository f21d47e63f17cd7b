"""Pictures that would cost far more time or memory than their bytes suggest."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

from jobs.item_codes import ItemCode
from tests.support.costly_pictures import FLAT, PARTS, flat_png
from tests.support.hostile import pictures
from tests.support.pictures import LIMITS
from worker.inference.images.decode import decode
from worker.inference.images.limits import DECODE_PIXEL_BYTES, DecodeError, ImageLimits, SlowImage
from worker.inference.settings import InferenceSettings

SIDE_PIXELS = 3000
BASE_BYTES = 24 << 20  # buffers of decoders that do not grow with the picture, and what Python allocates meanwhile


@pytest.mark.parametrize("name", PARTS)
def test_a_file_of_too_many_parts_is_not_decoded(name: str) -> None:
    with pytest.raises(DecodeError) as error:
        decode(PARTS[name](), LIMITS)
    assert error.value.code is ItemCode.TOO_MANY_PARTS


def test_pixels_of_more_than_four_bytes_count_for_more() -> None:
    limits = ImageLimits.of(InferenceSettings(item_pixels_max=4000))
    assert decode(flat_png(60, depth=8), limits).shape == (60, 60, 3)
    assert decode(flat_png(60, depth=16, colour_type=0), limits).shape == (60, 60)
    with pytest.raises(DecodeError) as error:
        decode(flat_png(60, depth=16), limits)
    assert error.value.code is ItemCode.TOO_MANY_PIXELS


@pytest.mark.parametrize("name", FLAT)
def test_decoding_takes_so_many_bytes_a_pixel_at_most(name: str) -> None:
    picture = FLAT[name](SIDE_PIXELS)
    decode(FLAT[name](28), LIMITS)
    before = _resident_bytes("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # sets the peak to what is resident now
    decode(picture, LIMITS)
    taken = _resident_bytes("VmHWM") - before
    assert taken <= DECODE_PIXEL_BYTES * SIDE_PIXELS**2 + BASE_BYTES


def _resident_bytes(name: str) -> int:
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name)]
    return int(line.split()[1]) << 10


@pytest.mark.parametrize("number", range(len(pictures()["gif"])))
def test_the_first_frame_of_a_gif_is_the_one_that_pillow_finds(number: int, tmp_path: Path) -> None:
    data, file = pictures()["gif"][number], tmp_path / "it.gif"
    file.write_bytes(data)
    with Image.open(file) as image:
        rgba = np.asarray(next(ImageSequence.Iterator(image)).convert("RGBA")).astype(int)
    on_white = 255 - (255 - rgba[:, :, :3]) * rgba[:, :, 3:] // 255
    found = decode(data, ImageLimits.of(InferenceSettings(item_frames_max=10)))
    assert np.array_equal(found, on_white)


@pytest.mark.parametrize("name", FLAT)
def test_an_image_that_takes_long_is_recognized_by_its_header(name: str) -> None:
    limits = replace(LIMITS, seconds_max=0.0005)
    with pytest.raises(SlowImage):
        decode(FLAT[name](300), limits)
    assert decode(FLAT[name](28), limits).shape[:2] == (28, 28)
