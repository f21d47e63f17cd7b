import pytest
import torch
from torch import Tensor, nn

from worker.inference.networks.cuda_graphs import CudaGraphs
from worker.inference.networks.device import Device, OnDevice

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch finds no GPU here")


class LooksAtValues(nn.Module):
    """A network that cannot be recorded: the CPU waits for a value."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, :3] * (2 if float(inputs.sum()) > 0 else 3)


def convolution() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10)).eval()


@torch.inference_mode()
def test_a_recorded_network_gives_what_the_network_gives_for_each_size_and_layout() -> None:
    network = convolution()
    on_gpu = CudaGraphs(convolution().cuda(), torch.device("cuda"))
    for images in (1, 2, 3, 7, 64, 5, 1, 100):
        for inputs in (torch.rand(images, 3, 8, 8), torch.rand(images, 8, 8, 3).permute(0, 3, 1, 2)):
            torch.testing.assert_close(on_gpu(inputs), network(inputs), rtol=1e-4, atol=1e-5)
    assert set(on_gpu._recorded) == {1, 2, 4, 8, 64, 128}
    assert None not in on_gpu._recorded.values()


@torch.inference_mode()
def test_outputs_stay_when_the_next_batch_is_computed() -> None:
    on_gpu = CudaGraphs(nn.Flatten(), torch.device("cuda"))
    first, second = torch.rand(4, 3, 2, 2), torch.rand(4, 3, 2, 2)
    outputs = on_gpu(first)
    on_gpu(second)
    assert torch.equal(outputs, first.flatten(1))


@torch.inference_mode()
def test_a_network_that_cannot_be_recorded_is_computed_as_it_is() -> None:
    on_gpu, inputs = CudaGraphs(LooksAtValues(), torch.device("cuda")), torch.rand(5, 1, 4, 4)
    assert torch.equal(on_gpu(inputs), inputs.flatten(1)[:, :3] * 2)
    assert torch.equal(on_gpu(-inputs), -inputs.flatten(1)[:, :3] * 3)
    assert on_gpu._recorded == {8: None}
    after = OnDevice(nn.Flatten(), Device.of("cuda", "float32"))
    assert torch.equal(after(inputs), inputs.flatten(1)), "the GPU still computes"
