"""What training shows instead of an image: a variation of it that is still the same object.

Everything is done to a whole batch at once, and drawn from a generator, so that a seed tells all of it.
"""

import torch
from torch import Generator, Tensor
from torch.nn import functional

SHIFT_PIXELS_MAX = 2
SCALED, SCALE_MAX = 0.15, 0.1  # the share of images that are scaled, and by how much at most
CHANGED = 0.08  # the share whose contrast, and whose sharpness, and whose noise is changed
CONTRAST_MAX, NOISE_MAX = 0.2, 0.05
SHOWN_OTHERWISE = 0.125  # the share of images in place of which another rendition is shown
ERASED, ERASED_AREA, ERASED_ASPECT = 0.25, (0.02, 0.33), (0.3, 3.3)  # random erasing (Zhong et al. 2017)


def augment(images: Tensor, generator: Generator) -> Tensor:
    """float32, N × 1 × height × width, in [0, 1], of N × 1 or more of the like; of more, the first is taken."""
    return _erased(_varied(images[:, :1], generator), generator)


def augment_late(images: Tensor, generator: Generator) -> Tensor:
    """Nothing erased; and now and then an image's other renditions, which are its further channels."""
    count, others = len(images), images.shape[1] - 1
    shown = torch.randint(1, others + 1, (count,), generator=generator)
    shown[torch.rand(count, generator=generator) >= SHOWN_OTHERWISE] = 0
    return _varied(images[torch.arange(count), shown].unsqueeze(1), generator)


def _varied(images: Tensor, generator: Generator) -> Tensor:
    return _with_other_light(_moved(images, generator), generator)


def _uniform(count: int, low: float, high: float, generator: Generator) -> Tensor:
    return torch.empty(count).uniform_(low, high, generator=generator)


def _moved(images: Tensor, generator: Generator) -> Tensor:
    """Mirrored or not, shifted by whole pixels, some of them scaled and shifted by fractions."""
    count, side = len(images), images.shape[-1]
    scaled = torch.rand(count, generator=generator) < SCALED
    scale = torch.where(scaled, 1 + _uniform(count, -SCALE_MAX, SCALE_MAX, generator), 1.0)
    mirrored = torch.where(torch.rand(count, generator=generator) < 0.5, -1.0, 1.0)
    shift = _uniform(2 * count, -SHIFT_PIXELS_MAX - 0.5, SHIFT_PIXELS_MAX + 0.5, generator).view(count, 2)
    shift = torch.where(scaled[:, None], shift, shift.round().clamp(-SHIFT_PIXELS_MAX, SHIFT_PIXELS_MAX)) * 2 / side
    zero = torch.zeros(count)
    rows = torch.stack([scale * mirrored, zero, shift[:, 0], zero, scale, shift[:, 1]], dim=1)
    grid = functional.affine_grid(rows.view(count, 2, 3), list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, align_corners=False)


def _with_other_light(images: Tensor, generator: Generator) -> Tensor:
    """Some with another contrast, some blurred or sharpened, some noisy."""
    count = len(images)

    def share() -> Tensor:
        return (torch.rand(count, generator=generator) < CHANGED).view(-1, 1, 1, 1)

    gain = 1 + _uniform(count, -CONTRAST_MAX, CONTRAST_MAX, generator).view(-1, 1, 1, 1)
    images = torch.where(share(), images * gain, images)
    sharpness = _uniform(count, -0.8, 0.8, generator).view(-1, 1, 1, 1)
    blurred = functional.avg_pool2d(images, 3, stride=1, padding=1)
    images = torch.where(share(), images + sharpness * (images - blurred), images)
    noise = torch.randn(images.shape, generator=generator) * _uniform(count, 0, NOISE_MAX, generator).view(-1, 1, 1, 1)
    return torch.where(share(), images + noise, images).clamp(0, 1)


def _erased(images: Tensor, generator: Generator) -> Tensor:
    """Some with noise in place of a rectangle."""
    count, side = len(images), images.shape[-1]
    area = _uniform(count, *ERASED_AREA, generator) * side * side
    low, high = (float(torch.tensor(bound).log()) for bound in ERASED_ASPECT)
    aspect = _uniform(count, low, high, generator).exp()
    sizes = torch.stack([(area * aspect).sqrt(), (area / aspect).sqrt()], dim=1).clamp(1, side - 1).round()
    starts = (torch.rand(count, 2, generator=generator) * (side - sizes + 1)).floor()
    at = torch.arange(side)
    inside = (at >= starts[..., None]) & (at < (starts + sizes)[..., None])  # N × 2 × side
    box = (
        inside[:, 0, :, None] & inside[:, 1, None, :] & (torch.rand(count, generator=generator) < ERASED).view(-1, 1, 1)
    )
    return torch.where(box[:, None], torch.rand(images.shape, generator=generator), images)
