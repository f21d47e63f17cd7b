"""Networks unlike the built-in ones, to be exported as packages."""

import torch
from torch import Tensor, nn


def thousand_classes() -> nn.Module:
    """For colour images of 224 × 224, with residual, grouped and attention layers as in large networks."""
    torch.manual_seed(5)
    return _Thousand().eval()


class _Thousand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, stride=4, padding=3), nn.BatchNorm2d(16), nn.SiLU())
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.squeeze = nn.Linear(16, 16)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 1000))

    def forward(self, images: Tensor) -> Tensor:
        features = self.stem(images)
        features = features + self.grouped(features)
        features = features * torch.sigmoid(self.squeeze(features.mean(dim=(2, 3))))[:, :, None, None]
        outputs: Tensor = self.head(nn.functional.adaptive_max_pool2d(features, 1).flatten(1))
        return outputs


def is_bright() -> nn.Module:
    """One logit for a gray image of 32 × 32: above 0 if its mean brightness is above one half."""
    return _IsBright().eval()


class _IsBright(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, images: Tensor) -> Tensor:
        return self.scale * (images.mean(dim=(1, 2, 3)) - 0.5).unsqueeze(1)


def no_network() -> str:
    return "not a network"


def one_at_a_time() -> nn.Module:
    """For one gray image of 8 × 8; accepts no batches."""
    return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, 64)), nn.Linear(64, 2))


def two_at_a_time() -> nn.Module:
    """For batches of two gray images of 8 × 8."""
    return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 64)), nn.Linear(64, 2))


def of_classes(classes: int) -> nn.Module:
    """For gray images of 8 × 8."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def two_classes() -> nn.Module:
    torch.manual_seed(5)
    return of_classes(2)


def branches() -> nn.Module:
    """The network branches on the pixels, which a graph cannot represent."""
    return _Branches().eval()


class _Branches(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        means = images.mean(dim=(1, 2, 3))
        return torch.stack([means, -means] if means.sum() > 0 else [-means, means], dim=1)


def flattens_by_view() -> nn.Module:
    """For colour images of 8 × 8, as many tutorials write it: `view` accepts only contiguous inputs."""
    torch.manual_seed(5)
    return _FlattensByView().eval()


class _FlattensByView(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 6 * 6, 2)

    def forward(self, images: Tensor) -> Tensor:
        outputs: Tensor = self.head(self.convolution(images).view(images.shape[0], -1))
        return outputs
