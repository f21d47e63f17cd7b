import logging
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs.errors import SettingsError
from jobs.records import Outcome
from tests.support.pictures import LIMITS, samples
from tests.support.processes import ROOT
from training.data import HELD_OUT_TO_THE_END, load_fashion_mnist, tensors
from worker.inference.networks.architectures import ARCHITECTURES
from worker.inference.networks.device import CPU_FLOAT32, FORWARDS_BEFORE_LARGER, Device, OnDevice
from worker.inference.networks.optimize import fastest_equivalent
from worker.inference.networks.variants import VARIANTS
from worker.inference.packages.load import load_package

CPU_BFLOAT16 = Device.of("cpu", "bfloat16")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


class OutOfMemoryAbove(nn.Module):
    """A network with enough memory for batches up to a size."""

    def __init__(self, batch_max: int) -> None:
        super().__init__()
        self.batch_max = batch_max
        self.batches = list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        self.batches.append(len(inputs))
        if len(inputs) > self.batch_max:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return inputs.flatten(1)[:, :3] * 2


def test_batches_are_halved_until_they_fit_and_grow_again(caplog: pytest.LogCaptureFixture) -> None:
    network = OutOfMemoryAbove(20)
    on_device, inputs = OnDevice(network, CPU_FLOAT32), torch.rand(64, 1, 2, 2)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(on_device(inputs), inputs.flatten(1)[:, :3] * 2)
    assert network.batches == [64, 32, 16, 16, 16, 16]
    assert len(caplog.messages) == 2
    assert caplog.messages[-1] == "32 images exceed the device's memory; from here on at most 16 at a time"

    network.batches.clear()
    on_device(inputs)
    assert network.batches == [16] * 4, "it does not retry the larger batch at once"
    network.batch_max = 64
    for _ in range(2 * FORWARDS_BEFORE_LARGER + 2):
        on_device(inputs)
    network.batches.clear()
    on_device(inputs)
    assert network.batches == [64]


def test_one_image_that_does_not_fit_is_out_of_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        OnDevice(OutOfMemoryAbove(0), CPU_FLOAT32)(torch.rand(8, 1, 2, 2))


def test_a_batch_that_fits_is_not_split() -> None:
    network = OutOfMemoryAbove(20)
    on_device = OnDevice(network, CPU_FLOAT32)
    on_device(torch.rand(64, 1, 2, 2))
    network.batches.clear()
    assert on_device(torch.rand(5, 1, 2, 2)).shape == (5, 3)
    assert network.batches == [5]


PACKAGES = pytest.mark.parametrize("package", sorted((ROOT / "weights").iterdir()), ids=lambda path: path.name)


def largest_difference(one: list[Outcome], other: list[Outcome]) -> float:
    """The largest difference of any confidence."""
    differences = list[float]()
    for ours, theirs in zip(one, other, strict=True):
        assert isinstance(ours, list)
        assert isinstance(theirs, list)
        confidences = dict(theirs)
        differences += [abs(confidences[prediction.class_index] - prediction.confidence) for prediction in ours]
    return max(differences)


def half_if_possible(networks: Sequence[nn.Module], _: Sequence[Tensor]) -> Sequence[float]:
    """Measures that the last network, which is in bfloat16 if that is possible, is the fastest."""
    return [1, 0.1][: len(networks)]


choose_bfloat16 = partial(
    fastest_equivalent, variants=[variant for variant in VARIANTS if variant.half], measure=half_if_possible
)
"""Chooses bfloat16 for every network that has convolutions."""


def as_on_a_gpu(network: nn.Module, *_: object, **__: object) -> nn.Module:
    """Computes a network in bfloat16 by torch's own operators, as on a GPU."""
    return OnDevice(network, CPU_BFLOAT16)


Optimize = Callable[..., nn.Module]


def classify_samples(package: Path, device: Device, optimize: Optimize = fastest_equivalent) -> list[Outcome]:
    uploads = list(samples().values())
    return load_package(package, LIMITS, device, optimize=optimize).classify(uploads, [10] * len(uploads))


@PACKAGES
def test_bfloat16_on_a_cpu_gives_nearly_the_same(package: Path) -> None:
    """Networks without convolutions stay in float32, and one whose answers move too far, as imagenet's may."""
    half = classify_samples(package, CPU_BFLOAT16, choose_bfloat16)
    difference = largest_difference(classify_samples(package, CPU_FLOAT32, choose_bfloat16), half)
    if package.name == "fmnist-mlp":
        assert difference < 1e-6
    else:
        assert difference < 1e-2
        assert difference > 1e-6 or package.name == "imagenet"


@pytest.mark.parametrize("optimize", [choose_bfloat16, as_on_a_gpu], ids=["by TorchScript", "as a GPU does it"])
def test_bfloat16_gives_nearly_the_same_for_images_that_were_not_trained_with(optimize: Optimize) -> None:
    full = held_out_confidences(CPU_FLOAT32, choose_bfloat16)
    half = held_out_confidences(CPU_BFLOAT16, optimize)
    assert 1e-6 < float(np.abs(full - half).max()) < 1e-2


def held_out_confidences(device: Device, optimize: Optimize = fastest_equivalent) -> NDArray[np.float32]:
    """Of the images that the shipped network was not trained with: N × classes."""
    classifier = load_package(ROOT / "weights" / "fmnist-cnn", LIMITS, device, optimize=optimize)
    inputs, _ = tensors(load_fashion_mnist(ROOT / "data" / "training", HELD_OUT_TO_THE_END).held_out)
    return np.concatenate(
        [classifier.head.confidences(classifier.outputs(batch.numpy())) for batch in inputs.split(64)]
    )


def test_the_default_network_uses_half_precision_only_in_its_middle() -> None:
    network = ARCHITECTURES["fmnist-cnn-2"](10).eval()
    assert isinstance(network, nn.Sequential)
    dtypes = list[torch.dtype]()
    for layer in network:
        layer.register_forward_hook(lambda *arguments: dtypes.append(arguments[2].dtype))
    with torch.inference_mode(), CPU_BFLOAT16.autocast():
        network(torch.rand(2, 1, 28, 28))
    assert dtypes == [torch.float32] * 4 + [torch.bfloat16] * 4 + [torch.float32] * 3


def test_a_network_on_a_device_with_half_precision_computes_in_it() -> None:
    torch.manual_seed(1)
    network, inputs = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval(), torch.rand(64, 1, 28, 28)
    with torch.inference_mode():
        full, half = (OnDevice(network, device)(inputs) for device in (CPU_FLOAT32, CPU_BFLOAT16))
    assert full.dtype == half.dtype == torch.float32
    assert 1e-5 < float((full.softmax(1) - half.softmax(1)).abs().max()) < 1e-2


def test_devices_and_precisions_have_names() -> None:
    assert Device.of("cpu") == Device.of("cpu", "float32") == CPU_FLOAT32
    assert Device.of("cpu", "bfloat16") == CPU_BFLOAT16
    assert CPU_FLOAT32.name == "the CPU, in float32"
    assert CPU_BFLOAT16.name == "the CPU, in bfloat16 if that is faster"


class Moved(nn.Module):
    """A network whose outputs are further off than those in bfloat16 may be."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.network(inputs) * 0.2
        return outputs


def test_a_model_whose_golden_images_differ_in_bfloat16_is_served_in_float32(caplog: pytest.LogCaptureFixture) -> None:
    package = ROOT / "weights" / "fmnist-cnn"

    def moved_if_half(network: nn.Module, *_: object, half: bool) -> nn.Module:
        return Moved(network) if half else network

    with caplog.at_level(logging.INFO, "worker.inference.packages.load"):
        classified = classify_samples(package, CPU_BFLOAT16, moved_if_half)
    assert "not in bfloat16: " in caplog.text
    assert largest_difference(classify_samples(package, CPU_FLOAT32), classified) < 1e-5


def test_children_are_spread_over_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for device in ("auto", "cuda"):
        devices = [Device.of(device, child=child).torch_device for child in range(4)]
        assert [torch_device.index for torch_device in devices] == [0, 1, 2, 0]
    assert Device.of("cuda:1", child=2) == Device(torch.device("cuda:1"), half=True)
    with pytest.raises(SettingsError, match=r"DEVICE is cuda:3, but torch .* finds 3 GPUs here"):
        Device.of("cuda:3")


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_missing_gpu_is_reported(device: str) -> None:
    assert Device.of("auto") == CPU_FLOAT32
    with pytest.raises(SettingsError, match=rf"^DEVICE is {device}, but torch .* finds no GPUs here$"):
        Device.of(device)


@gpu
@PACKAGES
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_a_gpu_gives_the_same_as_the_cpu(package: Path, precision: str, tolerance: float) -> None:
    gpu_device = Device.of("cuda", precision)
    assert largest_difference(classify_samples(package, CPU_FLOAT32), classify_samples(package, gpu_device)) < tolerance
    assert float(np.abs(held_out_confidences(CPU_FLOAT32) - held_out_confidences(gpu_device)).max()) < tolerance
