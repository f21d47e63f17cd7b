"""The built-in networks, by the name that a manifest gives as its `architecture`."""

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional


def fmnist_mlp(classes: int) -> nn.Module:
    """The book's 784-1000-classes network, for N × 1 × 28 × 28."""
    return _FlattenedInputs(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, classes))


def fmnist_cnn_2(classes: int) -> nn.Module:
    """A residual network (He et al. 2016) for N × 1 × 28 × 28.

    With ten classes, 653 thousand parameters and 53 million multiplications an image. A block with more channels than
    the one before has half as many rows and columns.
    """
    channels = (16, 16, 64, 64, 128, 128)  # of the first convolution, then of each block
    return _MixedPrecision(
        *_convolution(1, channels[0], 3),
        nn.ReLU(),
        *(_ResidualBlock(before, after, stride=1 if before == after else 2) for before, after in pairwise(channels)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels[-1], classes),
    )


class _MixedPrecision(nn.Sequential):
    """A residual network that allows half precision only in the blocks after the first.

    bfloat16 cannot distinguish all gray levels, and rounds a logit of 10 to a sixteenth. The layers that stay in
    float32 for that are 7% of the work (decision 33).
    """

    _FLOAT32_FIRST, _FLOAT32_LAST = 4, 3  # a convolution and a block; the pooling and the linear layer

    def forward(self, inputs: Tensor) -> Tensor:
        half_precision = range(self._FLOAT32_FIRST, len(self) - self._FLOAT32_LAST)
        for number, layer in enumerate(self):
            if number in half_precision:
                inputs = layer(inputs)
            else:
                with torch.autocast(inputs.device.type, enabled=False):
                    inputs = layer(inputs.float())
        return inputs


class _FlattenedInputs(nn.Sequential):
    """Layers over flattened images. Not an `nn.Flatten`: that would shift the numbers in the names of the weights."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs.flatten(1))  # type: ignore[no-untyped-call]  # torch gives no types
        return outputs


class _ResidualBlock(nn.Module):
    """Two 3 × 3 convolutions and a shortcut around them."""

    def __init__(self, channels_in: int, channels: int, *, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *_convolution(channels_in, channels, 3, stride), nn.ReLU(), *_convolution(channels, channels, 3)
        )
        same = channels_in == channels and stride == 1
        self.around = nn.Identity() if same else nn.Sequential(*_convolution(channels_in, channels, 1, stride))

    def forward(self, inputs: Tensor) -> Tensor:
        return functional.relu(self.body(inputs) + self.around(inputs))


def _convolution(channels_in: int, channels: int, size: int, stride: int = 1) -> tuple[nn.Module, nn.Module]:
    convolution = nn.Conv2d(channels_in, channels, size, stride, padding=size // 2, bias=False)
    return convolution, nn.BatchNorm2d(channels)


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"fmnist-mlp": fmnist_mlp, "fmnist-cnn-2": fmnist_cnn_2}
