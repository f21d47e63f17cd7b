import csv
import dataclasses
import gzip
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jobs.model_packages import read_manifest
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training import data, fmnist_mlp
from training.__main__ import main, training_device
from training.calibration import calibration_error
from training.data import CLASSES, load_fashion_mnist, tensors
from training.rounding import rounded
from worker.inference.networks.architectures import ARCHITECTURES, fmnist_cnn_2
from worker.inference.packages.load import load_package

DATA_SET = ROOT / "data" / "training"


def test_the_data_set_is_split_once() -> None:
    parts = load_fashion_mnist(DATA_SET)
    assert [len(split.labels) for split in (parts.train, parts.held_out, parts.test)] == [55_000, 5_000, 10_000]
    assert parts.test.images.shape == (10_000, 28, 28)
    assert np.bincount(parts.test.labels).tolist() == [1000] * len(CLASSES)


def test_a_file_with_another_hash_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "DEBIAN_FOLDER", tmp_path / "nowhere")
    (tmp_path / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(b"something else"))
    with pytest.raises(ValueError, match="is not the file of"):
        load_fashion_mnist(tmp_path)


@pytest.mark.parametrize(
    ("model", "least", "is_calibrated"), [("fmnist-mlp", 0.885, False), ("fmnist-cnn", 0.954, True)]
)
def test_the_shipped_weights_are_as_good_as_their_manifest_says(
    model: str, least: float, *, is_calibrated: bool
) -> None:
    folder, test = ROOT / "weights" / model, load_fashion_mnist(DATA_SET).test
    classifier, manifest, (inputs, labels) = load_package(folder, LIMITS), read_manifest(folder), tensors(test)
    outputs = classifier.outputs(inputs.numpy())
    confidences = classifier.head.confidences(outputs)
    accuracy = (confidences.argmax(1) == test.labels).mean()
    assert accuracy == pytest.approx(manifest.test_accuracy, abs=5e-4)
    assert accuracy >= least
    assert (manifest.calibration_error is not None) == is_calibrated
    if is_calibrated:
        error = calibration_error(confidences, labels.numpy())
        assert error == pytest.approx(manifest.calibration_error, abs=1e-3)
        assert error < 0.02
        assert manifest.output.familiar_min is not None
        false_alarms = (classifier.head.familiarity(outputs) < manifest.output.familiar_min).mean()
        assert false_alarms == pytest.approx(manifest.output.false_alarms, abs=5e-4)


def test_networks_have_no_more_than_a_million_parameters() -> None:
    counts = {
        name: sum(parameter.numel() for parameter in build(10).parameters()) for name, build in ARCHITECTURES.items()
    }
    assert counts == {"fmnist-mlp": 795_010, "fmnist-cnn-2": 653_178}


def test_training_writes_a_package_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fmnist_mlp, "RECIPE", dataclasses.replace(fmnist_mlp.RECIPE, epochs=1))
    monkeypatch.setattr(fmnist_mlp, "load_fashion_mnist", lambda _: load_fashion_mnist(DATA_SET))
    arguments = ["training", "fmnist-mlp", "--models-dir", str(tmp_path), "--cache", str(tmp_path)]
    monkeypatch.setattr("sys.argv", arguments)
    main()

    classifier = load_package(tmp_path / "fmnist-mlp", LIMITS)
    assert classifier.card.test_accuracy is not None
    assert classifier.card.test_accuracy > 0.7
    accuracy = f"accuracy {classifier.card.test_accuracy:.2%} on Fashion-MNIST, 10,000 test images"
    assert capsys.readouterr().out == f"{accuracy}; the package is in {tmp_path / 'fmnist-mlp'}\n"
    (row,) = csv.DictReader((tmp_path / "fmnist-mlp.csv").read_text().splitlines())
    assert float(row["held_out_accuracy"]) > 0.7


def test_rounded_weights_are_exact_in_bfloat16() -> None:
    torch.manual_seed(1)
    network, inputs = fmnist_cnn_2(10), torch.rand(64, 1, 28, 28)
    network.train()
    for _ in range(3):  # changes the means and variances of the batch norms
        network(inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * parameter.std().nan_to_num() * torch.randn_like(parameter))
    rounded_network = rounded(network.eval())
    with torch.inference_mode():
        difference = (network(inputs).softmax(1) - rounded_network(inputs).softmax(1)).abs().max()
    assert 0 < float(difference) < 0.01
    for module in rounded_network.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert torch.equal(module.weight, module.weight.bfloat16().float())
        elif isinstance(module, nn.BatchNorm2d):
            ones = torch.ones(module.num_features)
            torch.testing.assert_close(module(ones[None, :, None, None])[0, :, 0, 0], ones + module.bias)


@pytest.mark.parametrize(("has_bfloat16", "expected"), [(True, True), (False, False)])
def test_training_is_in_bfloat16_if_the_cpu_has_instructions_for_it(
    monkeypatch: pytest.MonkeyPatch, *, has_bfloat16: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": has_bfloat16})
    assert [training_device(device).half for device in ("auto", "cpu")] == [expected] * 2
