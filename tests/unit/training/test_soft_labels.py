from pathlib import Path

import numpy as np
import torch

from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training.data import HELD_OUT_TO_THE_END, load_fashion_mnist
from training.fmnist_cnn import softened
from training.soft_labels import mean_logits, soft_labels, ten_views, write_soft_labels
from worker.inference.packages.load import load_package

DATA_SET = ROOT / "data" / "training"


def test_the_ten_views_are_shifts_to_four_sides_and_their_mirror_images() -> None:
    image = np.random.default_rng(3).random((4, 3), np.float32)
    zeros = np.zeros_like(image)
    right, left, down, up = (zeros.copy() for _ in range(4))
    right[:, 1:], left[:, :-1], down[1:], up[:-1] = image[:, :-1], image[:, 1:], image[:-1], image[1:]
    expected = [view for shifted in (image, right, left, down, up) for view in (shifted, shifted[:, ::-1])]
    views = list(ten_views(image[np.newaxis, np.newaxis]))
    assert len(views) == 10
    for view, expected_view in zip(views, expected, strict=True):
        np.testing.assert_array_equal(view[0, 0], expected_view)


def test_predictions_of_packages_are_stored_as_probabilities(tmp_path: Path) -> None:
    """The mean of all packages and of ten views of each image."""
    inputs = torch.from_numpy(load_fashion_mnist(DATA_SET).train.images[:20, np.newaxis] / np.float32(255))
    packages = [load_package(ROOT / "weights" / name, LIMITS) for name in ("fmnist-mlp", "fmnist-cnn")]
    logits = mean_logits(packages, inputs)
    views = list(ten_views(inputs.numpy()))
    assert len(views) == 10
    expected = np.mean([package.outputs(view) for package in packages for view in views], axis=0)
    np.testing.assert_allclose(logits, expected, atol=1e-4)
    write_soft_labels(logits, 2.0, tmp_path / "soft.npz")
    stored = soft_labels(tmp_path / "soft.npz")
    torch.testing.assert_close(stored, (torch.from_numpy(logits) / 2).softmax(1), rtol=0, atol=0.01)
    torch.testing.assert_close(stored.sum(1), torch.ones(20))


def test_training_targets_are_half_the_label_and_half_the_soft_label() -> None:
    labels = torch.from_numpy(load_fashion_mnist(DATA_SET, HELD_OUT_TO_THE_END).train.labels.astype(np.int64))
    learned = softened(labels)
    assert learned.shape == (len(labels), 10)
    torch.testing.assert_close(learned.sum(dim=1), torch.ones(len(labels)))
    of_label = learned.gather(1, labels[:, None])
    assert of_label.min() >= 0.5
    # Soft labels mostly agree with the labels, but not always: the networks they are from did not memorize the labels.
    assert float((learned.argmax(dim=1) == labels).float().mean()) > 0.95
    assert 0.9 < float(((of_label - 0.5) > 0.25).float().mean()) < 0.99
