import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training import data, fmnist_mlp
from training.__main__ import main
from training.data import CLASSES, load_fashion_mnist
from training.fit import Recipe, accuracy, fit
from worker.architectures import fmnist_mlp as network_of
from worker.package import load_package

CACHE = ROOT / "data" / "training"


def test_the_data_set_is_split_once() -> None:
    parts = load_fashion_mnist(CACHE)
    assert [len(split.labels) for split in (parts.train, parts.held_out, parts.test)] == [55_000, 5_000, 10_000]
    assert parts.test.images.shape == (10_000, 28, 28)
    assert np.bincount(parts.test.labels).tolist() == [1000] * len(CLASSES)


def test_a_file_that_is_not_the_publishers_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_DEBIAN", tmp_path / "nowhere")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="is not the file that"):
        load_fashion_mnist(tmp_path)


def test_the_shipped_weights_are_as_good_as_their_manifest_says() -> None:
    classifier = load_package(ROOT / "weights" / "fmnist-mlp", LIMITS)
    test = load_fashion_mnist(CACHE).test
    inputs = (test.images / np.float32(255)).astype(np.float32)[:, np.newaxis]
    right = (classifier.probabilities(inputs).argmax(1) == test.labels).mean()
    assert right == pytest.approx(classifier.card.test_accuracy, abs=5e-4)
    assert right >= 0.885


def test_training_writes_a_package_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fmnist_mlp, "RECIPE", dataclasses.replace(fmnist_mlp.RECIPE, epochs=1))
    monkeypatch.setattr(fmnist_mlp, "load_fashion_mnist", lambda _: load_fashion_mnist(CACHE))
    arguments = ["training", "fmnist-mlp", "--models-dir", str(tmp_path), "--cache", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    main()

    classifier = load_package(tmp_path / "fmnist-mlp", LIMITS)
    assert classifier.card.test_accuracy is not None
    assert classifier.card.test_accuracy > 0.7
    accuracy_and_place = f"{classifier.card.test_accuracy:.2%} right of Fashion-MNIST, 10,000 test images; "
    assert capsys.readouterr().out == f"{accuracy_and_place}the package is in {tmp_path / 'fmnist-mlp'}\n"
    (row,) = csv.DictReader((tmp_path / "fmnist-mlp.csv").read_text().splitlines())
    assert float(row["held_out_accuracy"]) > 0.7


def test_the_same_seed_gives_the_same_network(tmp_path: Path) -> None:
    recipe = Recipe(epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=0.1, label_smoothing=0, seed=1)
    inputs, labels = torch.rand(200, 784), torch.randint(0, 10, (200,))
    trained = []
    for _ in range(2):
        torch.manual_seed(recipe.seed)
        network = network_of(10)
        fit(network, (inputs, labels), (inputs, labels), recipe, tmp_path / "log.csv")
        trained.append(torch.cat([value.flatten() for value in network.state_dict().values()]))
    assert torch.equal(*trained)
    assert accuracy(network, inputs, labels) > 0.9, "it learned these by heart"
