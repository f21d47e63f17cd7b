import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from jobs.errors import SettingsError
from jobs.records import Outcome
from jobs.settings import load
from tests.support.pictures import LIMITS, samples
from tests.support.processes import ROOT
from training.data import HELD_OUT_TO_THE_END, load_fashion_mnist, tensors
from worker.inference.networks.architectures import ARCHITECTURES
from worker.inference.networks.device import CALM_FORWARDS, FULL, Device, Placed
from worker.inference.packages.load import load_package
from worker.settings import WorkerSettings

HALF = Device.of("cpu", "bfloat16")
no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


class Small(nn.Module):
    """A network for whose batches there is memory up to a size."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.seen = list[int]()

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(len(inputs))
        if len(inputs) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return inputs.flatten(1)[:, :3] * 2


def test_batches_are_halved_until_they_fit_and_grow_again(caplog: pytest.LogCaptureFixture) -> None:
    network = Small(room=20)
    placed, inputs = Placed(network, FULL), torch.rand(64, 1, 2, 2)
    with caplog.at_level(logging.WARNING):
        torch.testing.assert_close(placed(inputs), inputs.flatten(1)[:, :3] * 2)
    assert network.seen == [64, 32, 16, 16, 16, 16]
    assert len(caplog.messages) == 2
    assert caplog.messages[-1] == "32 images do not fit the device's memory; 16 at a time from here on"

    network.seen.clear()
    placed(inputs)
    assert network.seen == [16] * 4, "it does not try again what has just failed"
    network.room = 64
    for _ in range(2 * CALM_FORWARDS + 2):
        placed(inputs)
    network.seen.clear()
    placed(inputs)
    assert network.seen == [64]


def test_one_image_that_does_not_fit_is_out_of_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        Placed(Small(room=0), FULL)(torch.rand(8, 1, 2, 2))


def test_a_batch_smaller_than_what_fits_is_one() -> None:
    network = Small(room=20)
    placed = Placed(network, FULL)
    placed(torch.rand(64, 1, 2, 2))
    network.seen.clear()
    assert placed(torch.rand(5, 1, 2, 2)).shape == (5, 3)
    assert network.seen == [5]


PACKAGES = pytest.mark.parametrize("package", sorted((ROOT / "weights").iterdir()), ids=lambda path: path.name)


def largest_difference(one: list[Outcome], other: list[Outcome]) -> float:
    """Of any confidence of the samples."""
    differences = list[float]()
    for said, says in zip(one, other, strict=True):
        assert isinstance(said, list)
        assert isinstance(says, list)
        of = dict(says)
        differences += [abs(of[it.class_index] - it.confidence) for it in said]
    return max(differences)


def samples_by(package: Path, device: Device) -> list[Outcome]:
    uploads = list(samples().values())
    return load_package(package, LIMITS, device).classify(uploads, [10] * len(uploads))


@PACKAGES
def test_bfloat16_on_a_processor_gives_nearly_the_same(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    """Of what has convolutions; what has none stays in float32."""
    monkeypatch.setattr("worker.inference.networks.optimize._WAYS", {})
    monkeypatch.setattr("worker.inference.networks.optimize._seconds", lambda networks, _: [1, 0.1][: len(networks)])
    difference = largest_difference(samples_by(package, FULL), samples_by(package, HALF))
    if package.name == "fmnist-mlp":
        assert difference < 1e-6
    else:
        assert 1e-6 < difference < 1e-2


@pytest.mark.parametrize("way", ["by TorchScript", "as a GPU does it"])
def test_bfloat16_gives_nearly_the_same_for_images_that_were_not_learned(
    monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    monkeypatch.setattr("worker.inference.networks.optimize._WAYS", {})
    monkeypatch.setattr("worker.inference.networks.optimize._seconds", lambda networks, _: [1, 0.1][: len(networks)])
    full = confidences_by(FULL)
    if way == "as a GPU does it":
        monkeypatch.setattr(
            "worker.inference.packages.load.fastest_equivalent", lambda network, *_, **__: Placed(network, HALF)
        )
    assert 1e-6 < float(np.abs(full - confidences_by(HALF)).max()) < 1e-2


def confidences_by(device: Device) -> NDArray[np.float32]:
    """Of the images that the shipped network was not trained with: N × classes."""
    classifier = load_package(ROOT / "weights" / "fmnist-cnn", LIMITS, device)
    inputs, _ = tensors(load_fashion_mnist(ROOT / "data" / "training", HELD_OUT_TO_THE_END).held_out)
    return np.concatenate([classifier.head.confidences(classifier.outputs(it.numpy())) for it in inputs.split(64)])


def test_the_default_network_is_half_where_it_does_no_harm() -> None:
    network = ARCHITECTURES["fmnist-cnn-2"](10).eval()
    assert isinstance(network, nn.Sequential)
    dtypes = list[torch.dtype]()
    for layer in network:
        layer.register_forward_hook(lambda *arguments: dtypes.append(arguments[2].dtype))
    with torch.inference_mode(), HALF.precision():
        network(torch.rand(2, 1, 28, 28))
    assert dtypes == [torch.float32] * 4 + [torch.bfloat16] * 4 + [torch.float32] * 3


def test_what_is_placed_in_half_precision_computes_in_it() -> None:
    torch.manual_seed(1)
    network, inputs = nn.Sequential(nn.Flatten(), nn.Linear(784, 10)).eval(), torch.rand(64, 1, 28, 28)
    with torch.inference_mode():
        full, half = (Placed(network, device)(inputs) for device in (FULL, HALF))
    assert full.dtype == half.dtype == torch.float32
    assert 1e-5 < float((full.softmax(1) - half.softmax(1)).abs().max()) < 1e-2


def test_a_device_and_its_precision_by_name() -> None:
    assert Device.of("cpu") == Device.of("cpu", "float32") == FULL
    assert Device.of("cpu", "bfloat16") == HALF
    assert FULL.name == "the processor, in float32"
    assert HALF.name == "the processor, in bfloat16 where that is faster"


def test_children_take_turns_on_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    for device in ("auto", "cuda"):
        places = [Device.of(device, child=child).device for child in range(4)]
        assert [place.index for place in places] == [0, 1, 2, 0]
    assert Device.of("cuda:1", child=2) == Device(torch.device("cuda:1"), half=True)
    with pytest.raises(SettingsError, match=r"DEVICE is cuda:3, but torch .* finds 3 GPUs here"):
        Device.of("cuda:3")


@pytest.mark.parametrize(
    ("device", "visible", "with_cuda", "children"),
    [
        ("auto", None, True, 4),
        ("cuda", "0, 2,3", True, 3),
        ("cuda:1", None, True, 1),
        ("cpu", None, True, 7),
        ("auto", "-1", True, 7),
        ("auto", "", True, 7),
        ("auto", None, False, 7),
    ],
)
def test_a_worker_has_one_child_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device: str, visible: str | None, *, with_cuda: bool, children: int
) -> None:
    for name in ("nvidia0", "nvidia1", "nvidia2", "nvidia10", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    (tmp_path / "lib").mkdir()
    if with_cuda:
        (tmp_path / "lib" / "libtorch_cuda.so").touch()
    monkeypatch.setattr("worker.gpu_count.DEVICES", tmp_path)
    monkeypatch.setattr("worker.gpu_count.find_spec", lambda _: SimpleNamespace(origin=str(tmp_path / "__init__.py")))
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    monkeypatch.delenv("WORKER_CHILDREN", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert WorkerSettings(device=device).worker_children == children


def test_a_device_that_is_none_is_the_only_setting_that_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVICE", "gpu")
    monkeypatch.delenv("WORKER_CHILDREN", raising=False)
    with pytest.raises(SettingsError, match=r"^DEVICE: String should match pattern [^;]* \(got 'gpu'\)$"):
        load(WorkerSettings)


@no_gpu
@pytest.mark.parametrize("device", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there_is_told(device: str) -> None:
    assert Device.of("auto") == FULL
    with pytest.raises(SettingsError, match=rf"^DEVICE is {device}, but torch .* finds no GPUs here$"):
        Device.of(device)


@gpu
@PACKAGES
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-4), ("bfloat16", 1e-2)])
def test_a_gpu_gives_what_the_processor_gives(package: Path, precision: str, tolerance: float) -> None:
    there = Device.of("cuda", precision)
    assert largest_difference(samples_by(package, FULL), samples_by(package, there)) < tolerance
    assert float(np.abs(confidences_by(FULL) - confidences_by(there)).max()) < tolerance
