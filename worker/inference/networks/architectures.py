"""The networks that a manifest may name."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional


def fmnist_mlp(classes: int) -> nn.Module:
    """The book's network: 784-1000-classes, for N × 1 × 28 × 28."""
    return _Flat(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, classes))


def fmnist_cnn_2(classes: int) -> nn.Module:
    """Version 2: 653 thousand parameters, 53 million multiplications an image."""
    return _residual_network(classes, 16, 64, 64, 128, 128)


def _residual_network(classes: int, *channels: int) -> nn.Module:
    """A residual network (He et al. 2016) with a block for each of `channels`, for N × 1 × 28 × 28.

    Where there are more channels than before, there are half as many rows and columns.
    """
    before = (channels[0], *channels)
    return _Mixed(
        *_convolution(1, channels[0], 3),
        nn.ReLU(),
        *(_Residual(less, more, stride=1 if less == more else 2) for less, more in zip(before, channels, strict=False)),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(channels[-1], classes),
    )


class _Mixed(nn.Sequential):
    """A residual network of which only the blocks after the first compute in half precision, where any may.

    bfloat16 cannot tell the levels of gray apart, and rounds a class's number of 10 to a sixteenth. What is exempt for
    that is 7% of the work (docs/decisions/0033).
    """

    _BEFORE, _AFTER = 4, 3  # a convolution and a block; the mean of rows and columns, and the linear layer

    def forward(self, inputs: Tensor) -> Tensor:
        half = range(self._BEFORE, len(self) - self._AFTER)
        for number, layer in enumerate(self):
            if number in half:
                inputs = layer(inputs)
            else:
                with torch.autocast(inputs.device.type, enabled=False):
                    inputs = layer(inputs.float())
        return inputs


class _Flat(nn.Sequential):
    """Layers that know nothing of rows and columns. `nn.Flatten` would do as well, but shift the names of weights."""

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = super().forward(inputs.flatten(1))  # type: ignore[no-untyped-call]  # torch gives no types
        return outputs


class _Residual(nn.Module):
    """Two 3 × 3 convolutions, and a way around them."""

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


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "fmnist-mlp": fmnist_mlp,
    "fmnist-cnn-2": fmnist_cnn_2,
}
