"""The networks that a manifest may name."""

from collections.abc import Callable

from torch import nn


def fmnist_mlp(classes: int) -> nn.Module:
    """The book's network: 784-1000-classes, for N × 1 × 28 × 28."""
    return nn.Sequential(nn.Linear(784, 1000), nn.ReLU(), nn.Linear(1000, classes))


ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {"fmnist-mlp": fmnist_mlp}
