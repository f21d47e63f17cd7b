"""Loads Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT licence) from this machine or its publisher; checks hashes."""

import gzip
import hashlib
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worker.inference.images.limits import ImageLimits

CLASSES = ["T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"]
LIMITS = ImageLimits(pixels_max=10**6, side_pixels_max=1000, frames_max=1, scans_max=100)
"""For images made by this package."""
HELD_OUT = 5_000  # the last training images: for all choices, so that the test images are used only once
HELD_OUT_TO_THE_END = 1_000  # of these, the ones that no shipped network was trained with

DEBIAN_FOLDER = Path("/usr/share/datasets/fashion-mnist")  # of Debian's package dataset-fashion-mnist
_PUBLISHER = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_SHA256 = {  # of the uncompressed contents: Debian compresses them differently
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


@dataclass(frozen=True, slots=True)
class Split:
    """Images of the data set, light on black: uint8, N × 28 × 28; labels: uint8, N."""

    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class FashionMnist:
    train: Split
    held_out: Split
    test: Split


def tensors(split: Split) -> tuple[Tensor, Tensor]:
    """Inputs: float32, N × 1 × 28 × 28, in [0, 1]; labels: int64, N."""
    inputs = torch.from_numpy(split.images[:, np.newaxis].astype(np.float32) / 255)
    return inputs, torch.from_numpy(split.labels.astype(np.int64))


def load_fashion_mnist(cache: Path, held_out: int = HELD_OUT) -> FashionMnist:
    """Read the data set from Debian's package or `cache`, or download it to `cache`.

    `held_out`: how many of the training images, the last ones, to hold out.

    Raises:
        ValueError: a file has another hash than the publisher's.
        OSError: a file is not on this machine and cannot be downloaded.
    """
    parts = {name: _idx(_read(name, cache)) for name in _SHA256}
    images, labels = parts["train-images-idx3-ubyte.gz"], parts["train-labels-idx1-ubyte.gz"]
    return FashionMnist(
        train=Split(images[:-held_out], labels[:-held_out]),
        held_out=Split(images[-held_out:], labels[-held_out:]),
        test=Split(parts["t10k-images-idx3-ubyte.gz"], parts["t10k-labels-idx1-ubyte.gz"]),
    )


def _read(name: str, cache: Path) -> bytes:
    path = next((folder / name for folder in (DEBIAN_FOLDER, cache) if (folder / name).exists()), None)
    packed = path.read_bytes() if path is not None else _download(name)
    data = gzip.decompress(packed)
    if hashlib.sha256(data).hexdigest() != _SHA256[name]:
        raise ValueError(f"{path or name} is not the file of Fashion-MNIST's publisher")
    if path is None:
        cache.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(packed)
    return data


def _download(name: str) -> bytes:
    with urllib.request.urlopen(_PUBLISHER + name, timeout=60) as response:
        return bytes(response.read())


def _idx(data: bytes) -> NDArray[np.uint8]:
    """The array of an IDX file of bytes (format: http://yann.lecun.com/exdb/mnist/)."""
    dimensions = data[3]
    shape = np.frombuffer(data, ">u4", dimensions, 4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * dimensions).reshape(shape.astype(int))
