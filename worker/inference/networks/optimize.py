"""Faster variants of a network on the CPU: used only if they are measured to be faster and give the same results.

MKL packs the weights of a linear layer anew in each forward pass, which takes a third of the time for a batch of 4;
oneDNN, a part of torch, packs them once. TorchScript fuses a convolution with the layers after it, and lays out weights
for oneDNN. A CPU with instructions for bfloat16 computes a convolution in little more than half the time.
"""

import copy
import logging
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from jobs.errors import one_line
from jobs.model_manifest import Input

log = logging.getLogger(__name__)

FloatArray = NDArray[np.float32]

TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2  # of a confidence, in float32 and in bfloat16
TIME_RATIO_MAX = 0.95  # of a variant's CPU time to the network's own: a smaller gain is not worth other last digits
BATCHES = (16, 64)
ROUNDS = 5
SECONDS_MAX = 0.15  # for all rounds; the first round always completes
SLOW_SECONDS = 0.01  # of one image: so slow a network is measured in small batches, as larger ones gain nothing
SLOW_BATCHES = (1, 2)
_OPERATORS = torch.ops.mkldnn
_CONVOLUTION_DIMENSIONS = 4  # of its weights
_PACKED_FOR_BATCH = 16  # the packing is best for this batch size, and good for all but 1
_UNCHANGED = "unchanged"


class Variant(NamedTuple):
    """Another way to compute a network."""

    name: str
    build: Callable[[nn.Module, Tensor], nn.Module]
    """Makes it of the network and example inputs. Raises any error if that is not possible."""
    tolerance: float
    """By how much a confidence may differ."""
    half: bool = False
    """Whether it computes in bfloat16."""


Measure = Callable[[Sequence[nn.Module], Sequence[Tensor]], Sequence[float]]
"""From networks and batches of inputs to a time for each network."""


def cpu_seconds(networks: Sequence[nn.Module], batches: Sequence[Tensor]) -> list[float]:
    """CPU time of each network for all batches. The networks take turns; the fastest of several rounds counts."""
    rounds, deadline = list[list[float]](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) < ROUNDS and time.monotonic() < deadline):
        rounds.append([_cpu_seconds_once(network, batches) for network in networks])
    return [min(of_network) for of_network in zip(*rounds, strict=True)]


def _packed_weights(network: nn.Module, _: Tensor) -> nn.Module:
    if not any(type(module) is nn.Linear for module in network.modules()):
        raise ValueError("the network has no linear layers")
    return _pack_linear_layers(copy.deepcopy(network, {id(tensor): tensor for tensor in network.parameters()}))


def _torchscript(network: nn.Module, inputs: Tensor) -> nn.Module:
    return _optimize(_trace(network, inputs))


def _torchscript_in_half(network: nn.Module, inputs: Tensor) -> nn.Module:
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        traced = _trace(network, inputs)
    return _optimize(traced)  # outside of autocast, which would apply again, also to the layers that are exempt


VARIANTS = (
    Variant("packed weights", _packed_weights, TOLERANCE),
    Variant("TorchScript", _torchscript, TOLERANCE),
    Variant("TorchScript in bfloat16", _torchscript_in_half, HALF_TOLERANCE, half=True),
)


def fastest_equivalent(
    network: nn.Module,
    input_spec: Input,
    to_confidences: Callable[[FloatArray], FloatArray],
    *,
    half: bool = False,
    variants: Sequence[Variant] = VARIANTS,
    measure: Measure = cpu_seconds,
) -> nn.Module:
    """The network, or a variant that is clearly faster on one thread and gives the same confidences within a tolerance.

    `to_confidences`: from the network's output to confidences, N × any number each.
    `half`: whether variants that compute in bfloat16 are allowed. Inputs and outputs are float32 in any case.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several threads spin while they wait for a core, which counts as CPU time
    try:
        return _fastest(network, input_spec, to_confidences, [it for it in variants if half or not it.half], measure)
    finally:
        torch.set_num_threads(threads)


def _fastest(
    network: nn.Module,
    input_spec: Input,
    to_confidences: Callable[[FloatArray], FloatArray],
    variants: Sequence[Variant],
    measure: Measure,
) -> nn.Module:
    generator = torch.Generator().manual_seed(0)  # the same inputs, and so the same choice, at each start
    size = input_spec.channels, input_spec.height, input_spec.width
    image = torch.rand(1, *size, generator=generator)
    with torch.inference_mode():
        network(image)
        is_slow = _cpu_seconds_once(network, [image]) > SLOW_SECONDS
        batches = [torch.rand(batch, *size, generator=generator) for batch in (SLOW_BATCHES if is_slow else BATCHES)]
        candidates = {_UNCHANGED: network}
        for variant in variants:
            built = _build(variant, network, batches, to_confidences)
            if built is not None:
                candidates[variant.name] = built
        seconds = dict(zip(candidates, measure(list(candidates.values()), batches), strict=True))
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] > TIME_RATIO_MAX * seconds[_UNCHANGED]:
        best = _UNCHANGED
    measured = ", ".join(f"{name} {1e3 * it:.1f} ms" for name, it in seconds.items())
    log.info("network: %s; for %s images: %s", best, " and ".join(str(len(it)) for it in batches), measured)
    return candidates[best] if best == _UNCHANGED else _PaddedBatches(candidates[best])


def _build(
    variant: Variant, network: nn.Module, batches: Sequence[Tensor], to_confidences: Callable[[FloatArray], FloatArray]
) -> nn.Module | None:
    """The variant of a network. None if it cannot be built, or gives other confidences."""
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is deprecated
            built = variant.build(network, batches[-1])
        difference = max(_largest_difference(network, built, batch, to_confidences) for batch in batches)
    except Exception as error:  # the variants use private parts of torch, or do not fit every network or every CPU
        log.info("%s: not possible for this network: %s", variant.name, one_line(error))
        return None
    if difference <= variant.tolerance:
        return built
    log.info("%s: a confidence differs by %.0e", variant.name, difference)
    return None


class PackedLinear(nn.Module):
    """A linear layer with weights packed for oneDNN, by the operators that torch's Inductor uses."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight, self._bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        # A private part of torch: if a release lacks these operators, `fastest_equivalent` skips the variant.
        self._packed = _OPERATORS._reorder_linear_weight(self._weight, _PACKED_FOR_BATCH)  # noqa: SLF001 - see above

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) == 1:  # limited by the reading of the weights, which MKL does faster
            return functional.linear(inputs, self._weight, self._bias)
        outputs: Tensor = _OPERATORS._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")  # noqa: SLF001 - the same
        return outputs


class _PaddedBatches(nn.Module):
    """Pads batches, so that a network sees only a few batch sizes.

    oneDNN compiles and caches a kernel for each size: 1.5 ms and 80 KB for each of up to 256.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, inputs: Tensor) -> Tensor:
        missing = -len(inputs) % _size_step(len(inputs))
        outputs: Tensor = self._network(
            functional.pad(inputs, (0,) * (2 * inputs.dim() - 1) + (missing,)) if missing else inputs
        )
        return outputs[: len(inputs)].float()


def _size_step(images: int) -> int:
    """A batch of this many images is padded to a multiple of this: an eighth of the batch, or less."""
    return max(1, 1 << max(0, images.bit_length() - 4))


def _pack_linear_layers(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear:
        return PackedLinear(module)
    for name, child in module.named_children():
        setattr(module, name, _pack_linear_layers(child))
    return module


def _trace(network: nn.Module, inputs: Tensor) -> Any:
    if not any(parameter.dim() == _CONVOLUTION_DIMENSIONS for parameter in network.parameters()):
        raise ValueError("the network has no convolutions")
    return torch.jit.trace(network, inputs)  # type: ignore[no-untyped-call]  # torch gives no types


def _optimize(traced: Any) -> nn.Module:
    optimized: nn.Module = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return optimized


def _largest_difference(
    one: nn.Module, other: nn.Module, inputs: Tensor, to_confidences: Callable[[FloatArray], FloatArray]
) -> float:
    """The largest difference of a confidence; NaN if one of the confidences is NaN."""
    ours, theirs = (to_confidences(network(inputs).float().numpy()) for network in (one, other))
    return float(np.abs(ours - theirs).max())


def _cpu_seconds_once(network: nn.Module, batches: Sequence[Tensor]) -> float:
    started = time.process_time()
    for batch in batches:
        network(batch)
    return time.process_time() - started
