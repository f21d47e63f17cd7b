import logging
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from jobs.model_manifest import Input, Output
from worker.inference.head import Head
from worker.inference.networks import optimize
from worker.inference.networks.optimize import Measure, fastest_equivalent
from worker.inference.networks.variants import VARIANTS, PackedLinear, Variant
from worker.inference.packages.exported_program import load_exported

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


PACKED = [variant for variant in VARIANTS if variant.name == "packed weights"]
IN_HALF = [variant for variant in VARIANTS if variant.half]


def measured(*seconds: float) -> Measure:
    """A measurement with these results: for the unchanged network, then for each variant that is possible."""

    def measure(networks: Sequence[nn.Module], _: Sequence[Tensor]) -> Sequence[float]:
        return seconds[: len(networks)]

    return measure


@pytest.mark.parametrize("batch", [1, 2, 16, 63, 64, 300])
def test_packed_weights_give_the_same_as_the_network(batch: int) -> None:
    plain = network()
    packed = fastest_equivalent(plain, INPUT, SOFTMAX, variants=PACKED, measure=measured(1, 0.5))
    inputs = torch.rand(batch, 1, 28, 28)
    with torch.inference_mode():
        torch.testing.assert_close(packed(inputs).softmax(1), plain(inputs).softmax(1), rtol=0, atol=1e-6)
    assert [type(module) for module in packed.modules()].count(PackedLinear) == 3
    assert not any(isinstance(module, PackedLinear) for module in plain.modules())


@pytest.mark.parametrize(("packed_seconds", "is_chosen"), [(0.94, True), (0.96, False), (3, False)])
def test_only_a_clearly_faster_variant_is_chosen_and_the_choice_is_logged(
    caplog: pytest.LogCaptureFixture, packed_seconds: float, *, is_chosen: bool
) -> None:
    caplog.set_level(logging.INFO)
    plain = network()
    chosen = fastest_equivalent(plain, INPUT, SOFTMAX, variants=PACKED, measure=measured(1, packed_seconds))
    assert (chosen is not plain) == is_chosen
    (line,) = caplog.messages
    assert line.startswith("network: packed weights; " if is_chosen else "network: unchanged; ")


def test_the_measurement_uses_one_thread_and_restores_the_number_of_threads() -> None:
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


def test_a_variant_with_other_confidences_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = network()
    for wrong in (1.001, float("nan")):
        monkeypatch.setattr(PackedLinear, "forward", lambda self, inputs, by=wrong: by * inputs @ self._weight.T)
        assert fastest_equivalent(plain, INPUT, SOFTMAX, variants=PACKED, measure=measured(1, 0.1)) is plain


def test_the_network_is_unchanged_if_weights_cannot_be_packed(
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
def test_convolutions_are_in_bfloat16_only_if_it_is_allowed(*, half: bool) -> None:
    plain = convolutional()
    changed = fastest_equivalent(plain, INPUT, SOFTMAX, half=half, measure=measured(4, 3, 2, 1))
    inputs = torch.rand(64, 1, 28, 28)
    with torch.inference_mode():
        outputs = changed(inputs)
        difference = float((outputs.float().softmax(1) - plain(inputs).softmax(1)).abs().max())
    assert outputs.dtype == torch.float32
    assert (1e-5 < difference < 1e-2) == half


def test_layers_exempt_from_bfloat16_are_so_in_torchscript_too() -> None:
    class Exempt(nn.Sequential):
        def forward(self, inputs: Tensor) -> Tensor:
            with torch.autocast("cpu", enabled=False):
                outputs: Tensor = super().forward(inputs)
            return outputs

    plain, inputs = Exempt(convolutional()).eval(), torch.rand(64, 1, 28, 28)
    changed = bfloat16_if_equivalent(plain)
    assert changed is not plain
    with torch.inference_mode():
        torch.testing.assert_close(changed(inputs), plain(inputs), rtol=0, atol=1e-5)


class AmplifiesLastDigits(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return torch.sin(1000 * inputs)


def bfloat16_if_equivalent(
    network: nn.Module, to_confidences: Callable[[np.ndarray], np.ndarray] = SOFTMAX
) -> nn.Module:
    """Measured as ten times faster than the network, the only variant."""
    return fastest_equivalent(network, INPUT, to_confidences, half=True, variants=IN_HALF, measure=measured(1, 0.1))


def test_bfloat16_is_not_chosen_if_confidences_differ(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    plain = convolutional()
    assert bfloat16_if_equivalent(plain) is not plain
    unstable = nn.Sequential(plain, AmplifiesLastDigits()).eval()
    assert bfloat16_if_equivalent(unstable) is unstable
    assert "TorchScript in bfloat16: a confidence differs by" in caplog.text


def test_a_single_logit_is_compared_by_its_confidence() -> None:
    unstable = nn.Sequential(convolutional(), nn.Linear(10, 1), AmplifiesLastDigits()).eval()
    assert bfloat16_if_equivalent(unstable, Head(Output(activation="sigmoid"), 2).confidences) is unstable


def test_a_slow_network_is_compared_in_batches_of_more_than_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace can depend on the batch size that it was made with."""
    monkeypatch.setattr(optimize, "BATCH_SECONDS_MAX", 0)

    class WrongInBatches(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            return inputs.flatten(1)[:, :10] * (2 if len(inputs) > 1 else 1)

    variant = Variant("wrong in batches", lambda _network, _inputs: WrongInBatches(), 1e-5)
    plain = nn.Sequential(nn.Flatten(), nn.Linear(784, 10, bias=False)).eval()
    with torch.no_grad():
        plain[1].weight.copy_(torch.eye(10, 784))
    assert fastest_equivalent(plain, INPUT, SOFTMAX, variants=[variant], measure=measured(1, 0.1)) is plain


def test_the_measurement_takes_few_rounds() -> None:
    batches = list[int]()

    class Counting(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            batches.append(len(inputs))
            return inputs

    unchanged = Variant("the same", lambda network, _: network, 1e-5)
    fastest_equivalent(Counting(), INPUT, SOFTMAX, variants=[unchanged])
    each = 2 * 2  # two sizes, of both networks: once for the comparison, and in each round
    assert 2 + 2 * each <= len(batches) <= 2 + each * (1 + optimize.ROUNDS)


def test_batches_of_all_sizes_are_padded_to_a_few_sizes() -> None:
    """oneDNN caches a kernel for each size."""
    packed = fastest_equivalent(network(), INPUT, SOFTMAX, variants=PACKED, measure=measured(1, 0.5))
    sizes = set[int]()
    next(module for module in packed.modules() if isinstance(module, PackedLinear)).register_forward_hook(
        lambda _, inputs, __: sizes.add(len(inputs[0]))
    )
    with torch.inference_mode():
        for size in range(1, 257):
            assert packed(torch.rand(size, 1, 28, 28)).shape == (size, 10)
    assert len(sizes) < 50
    assert max(sizes) == 256


@pytest.mark.parametrize("flatten", [torch.reshape, Tensor.view])
@pytest.mark.parametrize("name", ["channels last", "TorchScript", "TorchScript, channels last"])
def test_an_exported_program_is_made_faster_if_its_layers_allow_it(
    tmp_path: Path, name: str, flatten: Callable[..., Tensor]
) -> None:
    torch.manual_seed(4)
    plain = Depthwise(flatten).eval()
    program = torch.export.export(
        plain, (torch.rand(2, 3, 20, 20),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=256)},)
    )
    torch.export.save(program, tmp_path / "program.pt2")
    loaded = load_exported(tmp_path / "program.pt2", torch.device("cpu"))
    only = [variant for variant in VARIANTS if variant.name == name]
    changed = fastest_equivalent(
        loaded, Input(channels=3, height=20, width=20), SOFTMAX, variants=only, measure=measured(1, 0.1)
    )
    needs_contiguous = flatten is Tensor.view  # of the last convolution's output
    assert (changed is loaded) == (needs_contiguous and name != "TorchScript")
    for batch in (1, 2, 5, 64):
        inputs = torch.rand(batch, 3, 20, 20)
        with torch.inference_mode():
            torch.testing.assert_close(changed(inputs), plain(inputs), rtol=0, atol=1e-5)


class Depthwise(nn.Module):
    """As in networks for photos: depthwise convolutions, and a shape that depends on the number of images."""

    def __init__(self, flatten: Callable[..., Tensor]) -> None:
        super().__init__()
        self.flatten = flatten
        normalized = nn.BatchNorm2d(8), nn.ReLU6()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, 2), *normalized, nn.Conv2d(8, 8, 3, groups=8), *normalized)
        self.last = nn.Linear(8 * 7 * 7, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.flatten(self.body(inputs), (inputs.shape[0], -1)))
        return outputs


def test_no_variant_is_tried_once_the_network_took_too_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(optimize, "SECONDS_MAX", -1)
    plain = network()
    assert fastest_equivalent(plain, INPUT, SOFTMAX, measure=measured(1, 0.1)) is plain
    assert "packed weights: not tried" in caplog.text
