"""Networks that are not ours in kind, for packages made of them."""

import torch
from torch import Tensor, nn


def thousand_classes() -> nn.Module:
    """Of colour pictures, 224 × 224, with what such networks have: residuals, groups, attention by pooling."""
    torch.manual_seed(5)
    return _Thousand().eval()


class _Thousand(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 7, stride=4, padding=3), nn.BatchNorm2d(16), nn.SiLU())
        self.grouped = nn.Conv2d(16, 16, 3, padding=1, groups=4)
        self.squeeze = nn.Linear(16, 16)
        self.head = nn.Sequential(nn.Dropout(0.5), nn.Linear(16, 1000))

    def forward(self, pictures: Tensor) -> Tensor:
        features = self.stem(pictures)
        features = features + self.grouped(features)
        features = features * torch.sigmoid(self.squeeze(features.mean(dim=(2, 3))))[:, :, None, None]
        outputs: Tensor = self.head(nn.functional.adaptive_max_pool2d(features, 1).flatten(1))
        return outputs


def is_bright() -> nn.Module:
    """One number for a gray picture of 32 × 32: above 0 where it is brighter than half."""
    return _IsBright().eval()


class _IsBright(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(8.0))

    def forward(self, pictures: Tensor) -> Tensor:
        return self.scale * (pictures.mean(dim=(1, 2, 3)) - 0.5).unsqueeze(1)


def no_network() -> str:
    return "not a network"


def one_at_a_time() -> nn.Module:
    """Of one gray picture of 8 × 8, and of no batch."""
    return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (1, 64)), nn.Linear(64, 2))


def two_at_a_time() -> nn.Module:
    return nn.Sequential(nn.Flatten(0), nn.Unflatten(0, (2, 64)), nn.Linear(64, 2))


def of_classes(classes: int) -> nn.Module:
    """Of gray pictures of 8 × 8."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes))


def two_classes() -> nn.Module:
    torch.manual_seed(5)
    return of_classes(2)


def branches() -> nn.Module:
    """It goes another way for other pictures, which no graph can."""
    return _Branches().eval()


class _Branches(nn.Module):
    def forward(self, pictures: Tensor) -> Tensor:
        means = pictures.mean(dim=(1, 2, 3))
        return torch.stack([means, -means] if means.sum() > 0 else [-means, means], dim=1)
