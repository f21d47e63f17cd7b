import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from jobs.model_manifest import Input
from tests.support.pictures import LIMITS, encode
from tests.support.processes import ROOT
from training.data import load_fashion_mnist
from training.renditions import RENDITIONS
from worker.inference.images.decode import decode
from worker.inference.images.fashion_mnist import PLAIN_LEVELS
from worker.inference.images.preprocess import FMNIST

INPUT = Input(channels=1, height=28, width=28)
IMAGES = load_fashion_mnist(ROOT / "data" / "training").held_out.images[:200]
# Levels of 255 by which a rendition may differ from its image on average. Two different images differ by 70. Upscaling,
# trimming and centring change an image a little.
DIFFERENCE_MAX = {"raw": 0, "inverted, on white": 0, "16-bit PNG": 0, "padded, off-centre": 15}
DIFFERENCE_MAX_ON_BACKGROUND, DIFFERENCE_MAX_ELSE = 15, 6


def prepared(upload: bytes) -> NDArray[np.int16]:
    picture = FMNIST.to_input_size(decode(upload, LIMITS, FMNIST.decode_hints(INPUT)), INPUT)
    assert (picture.dtype, picture.shape) == (np.uint8, (28, 28))
    return picture.astype(np.int16)


@pytest.mark.parametrize("name", RENDITIONS)
def test_all_renditions_of_an_image_give_nearly_the_same_input(name: str) -> None:
    draw = np.random.default_rng(1)
    difference = np.mean([np.abs(prepared(RENDITIONS[name](image, draw)) - image).mean() for image in IMAGES])
    default = DIFFERENCE_MAX_ON_BACKGROUND if "background" in name else DIFFERENCE_MAX_ELSE
    assert difference <= DIFFERENCE_MAX.get(name, default), f"{difference:.1f} levels"


def test_an_input_has_brightness_from_0_to_1() -> None:
    values = FMNIST.to_floats(IMAGES[:3, ..., np.newaxis])
    assert (values.shape, values.dtype) == ((3, 28, 28, 1), np.float32)
    np.testing.assert_array_equal((values[..., 0] * 255).round(), IMAGES[:3])


@pytest.mark.parametrize(
    ("size", "is_object"),
    [
        *[((1, 1), False), ((1, 500), False), ((500, 1), False), ((4000, 30), False)],
        *[((3, 2), True), ((28, 28), True), ((29, 27), True)],
    ],
)
@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16"])
def test_every_size_and_mode_is_prepared(size: tuple[int, int], mode: str, *, is_object: bool) -> None:
    image = Image.new("L", size, 255)
    image.paste(3, (size[0] // 4, size[1] // 4, size[0] // 4 + (size[0] + 1) // 2, size[1] // 4 + (size[1] + 1) // 2))
    image = Image.fromarray(np.asarray(image) * np.uint16(257)) if mode == "I;16" else image.convert(mode)
    assert image.mode == mode
    result = prepared(encode(image, "JPEG", quality=100) if mode == "CMYK" else encode(image, "PNG"))
    assert (result.max() > 200) == is_object


@pytest.mark.parametrize("level", range(0, 256, 15))
def test_an_image_without_an_object_is_black(level: int) -> None:
    assert prepared(encode(Image.new("L", (100, 60), level), "PNG")).max() <= PLAIN_LEVELS
    assert prepared(encode(Image.new("RGB", (100, 60), (level, 255 - level, 128)), "PNG")).max() <= PLAIN_LEVELS


def test_an_object_that_touches_the_border_is_separated_from_its_background() -> None:
    picture = Image.new("L", (90, 120), 250)
    picture.paste(40, (20, 60, 70, 120))
    result = prepared(encode(picture, "PNG"))
    assert result[14, 14] == 215
    assert result[:, :2].max() == result[:, -2:].max() == 0, "an object of 5 by 6, centred"
    assert result[0].max() == result[-1].max() == 215, "it is trimmed"


def test_a_large_transparent_image_is_put_on_white() -> None:
    picture = Image.new("RGBA", (300, 300), (255, 0, 0, 0))
    picture.paste((20, 20, 20, 255), (100, 100, 200, 200))
    result = prepared(encode(picture, "PNG"))
    assert result.min() == result.max() == 235


def test_damaged_exif_data_is_ignored() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    sound = encode(Image.fromarray(255 - IMAGES[0]).resize((112, 112)), "JPEG", exif=exif)
    at = sound.index(b"Exif\0\0") + 6
    broken = sound[:at] + b"\xff" * 12 + sound[at + 12 :]
    assert prepared(broken).shape == (28, 28)
