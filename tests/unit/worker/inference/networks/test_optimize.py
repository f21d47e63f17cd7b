import logging

import pytest
import torch
from torch import Tensor, nn

from jobs.model_manifest import Input, Output
from worker.inference.head import Head
from worker.inference.networks import optimize as forward
from worker.inference.networks.optimize import PackedLinear, fastest_equivalent

INPUT = Input(channels=1, height=28, width=28)
SOFTMAX = Head(Output(), 10).confidences


def network() -> nn.Module:
    torch.manual_seed(4)
    deep = nn.Sequential(nn.Linear(300, 50, bias=False), nn.ReLU(), nn.Linear(50, 10))
    return nn.Sequential(nn.Flatten(), nn.Linear(784, 300), nn.ReLU(), deep).eval()


def convolutional() -> nn.Module:
    torch.manual_seed(4)
    body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)).eval()


def took(monkeypatch: pytest.MonkeyPatch, *, plain: float, packed: float) -> None:
    """Have the two measured as so many seconds, and no other way be there."""
    monkeypatch.setattr(forward, "_seconds", lambda networks, _: [plain, packed][: len(networks)])
    monkeypatch.delitem(forward._WAYS, "by TorchScript")


@pytest.mark.parametrize("batch", [1, 2, 16, 63, 64, 300])
def test_packed_weights_give_what_the_network_gives(monkeypatch: pytest.MonkeyPatch, batch: int) -> None:
    plain = network()
    took(monkeypatch, plain=1, packed=0.5)
    packed = fastest_equivalent(plain, INPUT, SOFTMAX)
    inputs = torch.rand(batch, 1, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(packed(inputs).softmax(1), plain(inputs).softmax(1), rtol=0, atol=1e-6)
    assert [type(module) for module in packed.modules()].count(PackedLinear) == 3
    assert not any(isinstance(module, PackedLinear) for module in plain.modules())


@pytest.mark.parametrize(("packed_seconds", "is_chosen"), [(0.94, True), (0.96, False), (3, False)])
def test_only_a_clear_gain_is_taken_and_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, packed_seconds: float, *, is_chosen: bool
) -> None:
    caplog.set_level(logging.INFO)
    took(monkeypatch, plain=1, packed=packed_seconds)
    plain = network()
    assert (fastest_equivalent(plain, INPUT, SOFTMAX) is not plain) == is_chosen
    (line,) = caplog.messages
    assert ("forward is with packed weights" in line) == is_chosen


def test_one_thread_is_measured_and_as_many_as_before_compute() -> None:
    threads = set[int]()

    class Counting(nn.Flatten):
        def forward(self, inputs: Tensor) -> Tensor:
            threads.add(torch.get_num_threads())
            return super().forward(inputs)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fastest_equivalent(nn.Sequential(Counting(), nn.Linear(784, 10)), INPUT, SOFTMAX)
        assert (threads, torch.get_num_threads()) == ({1}, 2)
    finally:
        torch.set_num_threads(before)


def test_one_that_says_something_else_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    took(monkeypatch, plain=1, packed=0.1)
    plain = network()
    for wrong in (1.001, float("nan")):
        monkeypatch.setattr(PackedLinear, "forward", lambda self, inputs, by=wrong: by * inputs @ self._weight.T)
        assert fastest_equivalent(plain, INPUT, SOFTMAX) is plain


def test_the_networks_own_forward_is_what_is_left_where_weights_cannot_be_packed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(_: Tensor, linear: nn.Linear) -> None:
        raise NotImplementedError(f"no such operator for {linear}")

    caplog.set_level(logging.INFO)
    monkeypatch.setattr(PackedLinear, "__init__", refuse)
    plain = network()
    assert fastest_equivalent(plain, INPUT, SOFTMAX) is plain
    assert "no such operator" in caplog.text


@pytest.mark.parametrize("half", [True, False])
def test_convolutions_are_in_bfloat16_where_they_may_be(monkeypatch: pytest.MonkeyPatch, *, half: bool) -> None:
    monkeypatch.setattr(forward, "_seconds", lambda networks, _: [4, 3, 2, 1][: len(networks)])
    plain = convolutional()
    changed = fastest_equivalent(plain, INPUT, SOFTMAX, half=half)
    inputs = torch.rand(64, 1, 28, 28)
    with torch.inference_mode():
        outputs = changed(inputs)
        difference = float((outputs.float().softmax(1) - plain(inputs).softmax(1)).abs().max())
    assert outputs.dtype == torch.float32
    assert (1e-5 < difference < 1e-2) == half


def test_what_is_exempt_from_bfloat16_is_so_by_torchscript_too(monkeypatch: pytest.MonkeyPatch) -> None:
    class Exempt(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                outputs: Tensor = super().forward(inputs)
            return outputs

    half_alone(monkeypatch)
    plain, inputs = Exempt(convolutional()).eval(), torch.rand(64, 1, 28, 28)
    changed = fastest_equivalent(plain, INPUT, SOFTMAX, half=True)
    assert changed is not plain
    with torch.inference_mode():
        torch.testing.assert_close(changed(inputs), plain(inputs), rtol=0, atol=1e-5)


class OfLastDigits(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(1000 * inputs)


def half_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have bfloat16 be the only other way, and ten times as fast."""
    monkeypatch.setattr(forward, "_WAYS", {})
    monkeypatch.setattr(forward, "_seconds", lambda networks, _: [1, 0.1][: len(networks)])


def test_bfloat16_is_not_taken_where_it_says_something_else(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    half_alone(monkeypatch)
    plain = convolutional()
    assert fastest_equivalent(plain, INPUT, SOFTMAX, half=True) is not plain
    wild = nn.Sequential(plain, OfLastDigits()).eval()
    assert fastest_equivalent(wild, INPUT, SOFTMAX, half=True) is wild
    assert "a way to compute the forward differs by" in caplog.text


def test_one_number_is_compared_as_the_confidence_that_it_becomes(monkeypatch: pytest.MonkeyPatch) -> None:
    half_alone(monkeypatch)
    wild = nn.Sequential(convolutional(), nn.Linear(10, 1), OfLastDigits()).eval()
    sigmoid = Head(Output(activation="sigmoid"), 2).confidences
    assert fastest_equivalent(wild, INPUT, sigmoid, half=True) is wild


def test_a_slow_network_is_compared_in_batches_of_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace that has learned the size of its batch by heart says something else for another."""
    monkeypatch.setattr(forward, "SLOW_SECONDS", 0)
    half_alone(monkeypatch)

    class OfOne(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, :10] * (2 if len(inputs) > 1 else 1)

    def first_alone(network: nn.Module, inputs: Tensor) -> nn.Module:
        return OfOne()

    monkeypatch.setattr(forward, "_WAYS", {"of one": (first_alone, 1e-5)})
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False)).eval()
    with torch.no_grad():
        plain[1].weight.copy_(torch.eye(10, 784))
    assert fastest_equivalent(plain, INPUT, SOFTMAX) is plain


def test_the_measurement_is_short() -> None:
    seen = list[int]()

    class Slow(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            seen.append(len(inputs))
            return inputs

    fastest_equivalent(Slow(), INPUT, SOFTMAX)
    runs = 2 * len(forward.BATCHES)  # of both: once for the difference, and in each round
    assert runs <= len(seen) <= 2 + runs * (1 + forward.ROUNDS)


def test_batches_of_all_sizes_reach_the_network_in_a_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps a kernel for each size that it has met."""
    took(monkeypatch, plain=1, packed=0.5)
    packed, seen = fastest_equivalent(network(), INPUT, SOFTMAX), set[int]()
    next(module for module in packed.modules() if isinstance(module, PackedLinear)).register_forward_hook(
        lambda _, inputs, __: seen.add(len(inputs[0]))
    )
    with torch.inference_mode():
        for size in range(1, 257):
            assert packed(torch.rand(size, 1, 28, 28)).shape == (size, 10)
    assert len(seen) < 50
    assert max(seen) == 256
