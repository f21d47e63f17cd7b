import csv
import dataclasses
import gzip
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from jobs.model_packages import read_manifest
from tests.support.pictures import LIMITS
from tests.support.processes import ROOT
from training import data, fmnist_mlp
from training import fit as fit_module
from training.__main__ import _compute, main
from training.augment import ERASED, SHOWN_OTHERWISE, augment, augment_late
from training.calibration import calibration_error
from training.data import CLASSES, load_fashion_mnist, tensors
from training.fit import Augment, Recipe, evaluate, fit
from training.rounding import rounded
from worker.inference.networks.architectures import ARCHITECTURES, fmnist_cnn_2
from worker.inference.networks.architectures import fmnist_mlp as network_of
from worker.inference.packages.load import load_package

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


@pytest.mark.parametrize(
    ("model", "least", "is_calibrated"), [("fmnist-mlp", 0.885, False), ("fmnist-cnn", 0.954, True)]
)
def test_the_shipped_weights_are_as_good_as_their_manifest_says(
    model: str, least: float, *, is_calibrated: bool
) -> None:
    folder, test = ROOT / "weights" / model, load_fashion_mnist(CACHE).test
    classifier, manifest, (inputs, labels) = load_package(folder, LIMITS), read_manifest(folder), tensors(test)
    outputs = classifier.outputs(inputs.numpy())
    confidences = classifier.head.confidences(outputs)
    right = (confidences.argmax(1) == test.labels).mean()
    assert right == pytest.approx(manifest.test_accuracy, abs=5e-4)
    assert right >= least
    assert (manifest.calibration_error is not None) == is_calibrated
    if is_calibrated:
        error = calibration_error(confidences, labels.numpy())
        assert error == pytest.approx(manifest.calibration_error, abs=1e-3)
        assert error < 0.02
        assert manifest.output.familiar_min is not None
        alarms = (classifier.head.familiarity(outputs) < manifest.output.familiar_min).mean()
        assert alarms == pytest.approx(manifest.output.false_alarms, abs=5e-4)


def test_networks_have_no_more_than_a_million_parameters() -> None:
    counts = {
        name: sum(parameter.numel() for parameter in build(10).parameters()) for name, build in ARCHITECTURES.items()
    }
    assert counts == {"fmnist-mlp": 795_010, "fmnist-cnn-2": 653_178}


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


PLAIN = Recipe(epochs=20, batch_size=32, learning_rate=1e-3, weight_decay=0.1, label_smoothing=0, seed=1)
AVERAGED = Recipe(
    epochs=4,
    batch_size=32,
    learning_rate=0.1,
    weight_decay=1e-4,
    label_smoothing=0.1,
    seed=2,
    momentum=0.9,
    averaged_steps=10,
)
HELD = dataclasses.replace(AVERAGED, falling_epochs=2)


def trained(recipe: Recipe, log: Path) -> tuple[torch.Tensor, float]:
    """All weights, and the accuracy on what was learned."""
    torch.manual_seed(recipe.seed)
    inputs, labels = torch.rand(200, 1, 28, 28), torch.randint(0, 10, (200,))
    shown = augment if recipe.averaged_steps else None
    kept = fit(network_of(10), (inputs, labels), (inputs, labels), recipe, log, augment=shown)
    weights = torch.cat([value.flatten() for value in kept.state_dict().values()])
    return weights, evaluate(kept, inputs, labels)[1]


@pytest.mark.parametrize("recipe", [PLAIN, AVERAGED, HELD])
def test_the_same_seed_gives_the_same_network(tmp_path: Path, recipe: Recipe) -> None:
    first, second = (trained(recipe, tmp_path / f"{number}.csv") for number in range(2))
    assert torch.equal(first[0], second[0])
    assert first[1] > 0.9 or recipe is not PLAIN, "it learned these by heart"


@pytest.mark.parametrize("recipe", [PLAIN, AVERAGED, HELD])
def test_a_training_that_was_stopped_goes_on_as_if_it_were_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: Recipe
) -> None:
    expected, _ = trained(recipe, tmp_path / "whole.csv")
    save, saved = fit_module._Run.save, list[Path]()

    def save_and_be_killed(run: fit_module._Run, path: Path) -> None:
        save(run, path)
        saved.append(path)
        if len(saved) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(fit_module._Run, "save", save_and_be_killed)
    with pytest.raises(KeyboardInterrupt):
        trained(recipe, tmp_path / "parts.csv")
    weights, _ = trained(recipe, tmp_path / "parts.csv")
    assert len(saved) == recipe.epochs
    assert torch.equal(weights, expected)
    assert (tmp_path / "parts.csv").read_text() == (tmp_path / "whole.csv").read_text()


def test_a_checkpoint_of_another_recipe_is_not_gone_on_with(tmp_path: Path) -> None:
    trained(PLAIN, tmp_path / "log.csv")
    with pytest.raises(ValueError, match="another recipe; remove it"):
        trained(dataclasses.replace(PLAIN, epochs=21), tmp_path / "log.csv")


def test_a_checkpoint_of_other_labels_is_not_gone_on_with(tmp_path: Path) -> None:
    images = torch.rand(64, 1, 28, 28)
    for labels in (torch.zeros(64, dtype=torch.int64), torch.ones(64, dtype=torch.int64)):
        said = pytest.raises(ValueError, match="other images or labels; remove it") if labels.any() else nullcontext()
        with said:
            fit(network_of(10), (images, labels), (images, labels), HELD, tmp_path / "log.csv")


def test_a_training_may_become_longer_while_its_rate_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    longer = dataclasses.replace(HELD, epochs=5)
    expected, _ = trained(longer, tmp_path / "whole.csv")
    save = fit_module._Run.save

    def stop_after(epochs: int, log: Path) -> None:
        def save_and_be_killed(run: fit_module._Run, path: Path) -> None:
            save(run, path)
            if len(run.reached) == epochs:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(fit_module._Run, "save", save_and_be_killed)
            with pytest.raises(KeyboardInterrupt):
                trained(HELD, log)

    stop_after(2, tmp_path / "holds.csv")
    weights, _ = trained(longer, tmp_path / "holds.csv")
    assert torch.equal(weights, expected)
    stop_after(3, tmp_path / "falls.csv")
    with pytest.raises(ValueError, match="another recipe; remove it"):
        trained(longer, tmp_path / "falls.csv")


def test_other_renditions_are_shown_only_in_the_last_epochs(tmp_path: Path) -> None:
    seen = list[tuple[str, tuple[int, ...]]]()

    def shown(name: str) -> Augment:
        def show(images: torch.Tensor, _: torch.Generator) -> torch.Tensor:
            seen.append((name, tuple(images.shape)))
            return images[:, :1]

        return show

    inputs, labels = torch.rand(32, 3, 28, 28), torch.randint(0, 10, (32,))
    fit(
        network_of(10), (inputs, labels), (inputs[:, :1], labels), dataclasses.replace(HELD, late_epochs=1),
        tmp_path / "log.csv", augment=shown("ever"), late_augment=shown("late"),
    )  # fmt: skip
    assert seen == [("ever", (32, 3, 28, 28))] * 3 + [("late", (32, 3, 28, 28))]


def test_some_images_are_shown_in_another_rendition() -> None:
    images = torch.stack([torch.full((28, 28), level) for level in (0.2, 0.5, 0.8)]).expand(4000, 3, 28, 28)
    levels = augment_late(images, torch.Generator().manual_seed(1)).flatten(1).median(1).values
    shares = [float(((levels - level).abs() < 0.1).float().mean()) for level in (0.2, 0.5, 0.8)]
    assert shares[0] == pytest.approx(1 - SHOWN_OTHERWISE, abs=0.05)
    assert shares[1:] == pytest.approx([SHOWN_OTHERWISE / 2] * 2, abs=0.03)


def test_nothing_is_erased_of_what_is_shown_late() -> None:
    """What is erased is noise, which no black image has otherwise, but for the little that a light may bring."""
    black = torch.zeros(2000, 2, 28, 28)
    bright = [
        float((shown.flatten(1).max(1).values > 0.5).float().mean())
        for shown in (it(black, torch.Generator().manual_seed(1)) for it in (augment, augment_late))
    ]
    assert bright == [pytest.approx(ERASED, abs=0.03), 0]


def test_a_network_is_rounded_to_what_bfloat16_can_tell() -> None:
    torch.manual_seed(1)
    network, inputs = fmnist_cnn_2(10), torch.rand(64, 1, 28, 28)
    network.train()
    for _ in range(3):  # means and variances that are not those of a new one
        network(inputs)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * parameter.std().nan_to_num() * torch.randn_like(parameter))
    kept = rounded(network.eval())
    with torch.inference_mode():
        difference = (network(inputs).softmax(1) - kept(inputs).softmax(1)).abs().max()
    assert 0 < float(difference) < 0.01
    for module in kept.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            assert torch.equal(module.weight, module.weight.bfloat16().float())
        elif isinstance(module, nn.BatchNorm2d):
            ones = torch.ones(module.num_features)
            torch.testing.assert_close(module(ones[None, :, None, None])[0, :, 0, 0], ones + module.bias)


@pytest.mark.parametrize(("half_there", "expected"), [(True, True), (False, False)])
def test_training_is_in_bfloat16_where_the_processor_has_it(
    monkeypatch: pytest.MonkeyPatch, *, half_there: bool, expected: bool
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": half_there})
    assert [_compute(device).half for device in ("auto", "cpu")] == [expected] * 2


def test_what_is_shown_differs_each_time_and_stays_an_image() -> None:
    images = torch.from_numpy(load_fashion_mnist(CACHE).train.images[:500, np.newaxis] / np.float32(255))
    generator = torch.Generator().manual_seed(1)
    first, second = augment(images, generator), augment(images, generator)
    assert first.shape == images.shape
    assert not torch.equal(first, second)
    for shown in (first, second):
        assert shown.min() >= 0
        assert shown.max() <= 1
        # Each is still like its image: more so than like the next one.
        own, other = ((shown - it).square().mean(dim=(1, 2, 3)) for it in (images, images.roll(1, 0)))
        mirrored = (shown.flip(-1) - images).square().mean(dim=(1, 2, 3))
        assert (torch.minimum(own, mirrored) < other).float().mean() > 0.7
