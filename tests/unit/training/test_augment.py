import numpy as np
import pytest
import torch

from tests.support.processes import ROOT
from training.augment import ERASED_SHARE, OTHER_RENDITION_SHARE, augment, augment_late
from training.data import load_fashion_mnist


def test_some_images_are_replaced_by_another_rendition() -> None:
    images = torch.stack([torch.full((28, 28), level) for level in (0.2, 0.5, 0.8)]).expand(4000, 3, 28, 28)
    levels = augment_late(images, torch.Generator().manual_seed(1)).flatten(1).median(1).values
    shares = [float(((levels - level).abs() < 0.1).float().mean()) for level in (0.2, 0.5, 0.8)]
    assert shares[0] == pytest.approx(1 - OTHER_RENDITION_SHARE, abs=0.05)
    assert shares[1:] == pytest.approx([OTHER_RENDITION_SHARE / 2] * 2, abs=0.03)


def test_the_late_augmentation_erases_nothing() -> None:
    """Erased rectangles have bright noise, which a black image has no other source of."""
    black = torch.zeros(2000, 2, 28, 28)
    bright = [
        float((augmented.flatten(1).max(1).values > 0.5).float().mean())
        for augmented in (
            augmentation(black, torch.Generator().manual_seed(1)) for augmentation in (augment, augment_late)
        )
    ]
    assert bright == [pytest.approx(ERASED_SHARE, abs=0.03), 0]


def test_augmented_images_differ_each_time_and_stay_similar_to_their_image() -> None:
    images = torch.from_numpy(
        load_fashion_mnist(ROOT / "data" / "training").train.images[:500, np.newaxis] / np.float32(255)
    )
    generator = torch.Generator().manual_seed(1)
    first, second = augment(images, generator), augment(images, generator)
    assert first.shape == images.shape
    assert not torch.equal(first, second)
    for augmented in (first, second):
        assert augmented.min() >= 0
        assert augmented.max() <= 1
        # Each is more similar to its image, possibly mirrored, than to the next one.
        own, other = ((augmented - it).square().mean(dim=(1, 2, 3)) for it in (images, images.roll(1, 0)))
        mirrored = (augmented.flip(-1) - images).square().mean(dim=(1, 2, 3))
        assert (torch.minimum(own, mirrored) < other).float().mean() > 0.7
