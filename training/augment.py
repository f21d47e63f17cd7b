"""Data augmentation: random variations of images that still show the same object.

All functions work on a whole batch, and draw from a generator, so that a seed determines the result.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

SHIFT_PIXELS_MAX = 2
SCALED_SHARE, SCALE_MAX = 0.15, 0.1  # of images; at most this change of scale
CHANGED_SHARE = 0.08  # of images: each for a change of contrast, of sharpness and of noise
CONTRAST_MAX, NOISE_MAX = 0.2, 0.05
OTHER_RENDITION_SHARE = 0.125  # of images
ERASED_SHARE, ERASED_AREA, ERASED_ASPECT = 0.25, (0.02, 0.33), (0.3, 3.3)  # random erasing (Zhong et al. 2017)


def augment(images: Tensor, generator: Generator) -> Tensor:
    """float32, N × 1 × height × width, in [0, 1]. Only the first channel of the images is used."""
    return _erase(_vary(images[:, :1], generator), generator)


def augment_late(images: Tensor, generator: Generator) -> Tensor:
    """For the late epochs: no erasing, and some images replaced by another rendition, which the other channels have."""
    count, others = len(images), images.shape[1] - 1
    channel = torch.randint(1, others + 1, (count,), generator=generator)
    channel[torch.rand(count, generator=generator) >= OTHER_RENDITION_SHARE] = 0
    return _vary(images[torch.arange(count), channel].unsqueeze(1), generator)


def _vary(images: Tensor, generator: Generator) -> Tensor:
    return _change_light(_move(images, generator), generator)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=generator)


def _move(images: Tensor, generator: Generator) -> Tensor:
    """Mirror half of the images and shift all by whole pixels; scale some, and shift these by fractions of pixels."""
    count, side = len(images), images.shape[-1]
    scaled = torch.rand(count, generator=generator) < SCALED_SHARE
    scale = torch.where(scaled, 1 + _uniform(count, -SCALE_MAX, SCALE_MAX, generator), 1.0)
    mirrored = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    shift = _uniform(2 * count, -SHIFT_PIXELS_MAX - 0.5, SHIFT_PIXELS_MAX + 0.5, generator).view(count, 2)
    shift = torch.where(scaled[:, None], shift, shift.round().clamp(-SHIFT_PIXELS_MAX, SHIFT_PIXELS_MAX)) * 2 / side
    zero = torch.zeros(count)
    rows = torch.stack([scale * mirrored, zero, shift[:, 0], zero, scale, shift[:, 1]], dim=1)
    grid = functional.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _change_light(images: Tensor, generator: Generator) -> Tensor:
    """Change the contrast of some images, blur or sharpen some, add noise to some."""
    count = len(images)

    def selected() -> Tensor:
        return (torch.rand(count, generator=generator) < CHANGED_SHARE).view(-1, 1, 1, 1)

    gain = 1 + _uniform(count, -CONTRAST_MAX, CONTRAST_MAX, generator).view(-1, 1, 1, 1)
    images = torch.where(selected(), images * gain, images)
    sharpness = _uniform(count, -0.8, 0.8, generator).view(-1, 1, 1, 1)
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1)
    images = torch.where(selected(), images + sharpness * (images - blurred), images)
    noise = torch.randn(images.shape, generator=generator) * _uniform(count, 0, NOISE_MAX, generator).view(-1, 1, 1, 1)
    return torch.where(selected(), images + noise, images).clamp(0, 1)


def _erase(images: Tensor, generator: Generator) -> Tensor:
    """Replace a rectangle of some images by noise."""
    count, side = len(images), images.shape[-1]
    area = _uniform(count, *ERASED_AREA, generator) * side * side
    low, high = (float(torch.tensor(bound).log()) for bound in ERASED_ASPECT)
    aspect = _uniform(count, low, high, generator).exp()
    sizes = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1).clamp(1, side - 1).round()
    starts = (torch.rand(count, 2, generator=generator) * (side - sizes + 1)).floor()
    index = torch.arange(side)
    inside = (index >= starts[..., None]) & (index < (starts + sizes)[..., None])  # N × 2 × side
    box = (
        inside[:, 0, :, None]
        & inside[:, 1, None, :]
        & (torch.rand(count, generator=generator) < ERASED_SHARE).view(-1, 1, 1)
    )
    return torch.where(box[:, None], torch.rand(images.shape, generator=generator), images)
