"""How a network's forward is computed: by torch as ever, or in another way where that was measured to be faster.

MKL packs a linear layer's weights anew at each forward, which for a batch of 4 is a third of its time. oneDNN, which is
in torch, too, packs them once. TorchScript folds what follows a convolution into it, and lays weights out for oneDNN.
In bfloat16, where a processor has instructions for it, a convolution takes little more than half the time.
"""

import copy
import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from jobs.errors import one_line
from jobs.model_manifest import Input

log = logging.getLogger(__name__)

TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2  # of a confidence; and in bfloat16
WINS_BY = 0.95  # another way's CPU time by the plain one's, at most: what is no clear gain is not worth a difference
BATCHES = (16, 64)
ROUNDS = 5
SECONDS_MAX = 0.15  # for all rounds; the first one is always run to its end
SLOW_SECONDS = 0.01  # of one image: a network that takes so long gains nothing from being measured in such batches
SLOW_BATCHES = (1, 2)
_OPERATORS = torch.ops.mkldnn
_Change = Callable[[nn.Module, Tensor], nn.Module]
_Confidences = Callable[[NDArray[np.float32]], NDArray[np.float32]]
_CONVOLUTIONS = 4  # the dimensions of their weights
_PACKED_FOR = 16  # the batch that the packing is best for; it is good for any but 1


def fastest_equivalent(
    network: nn.Module, wanted: Input, confidences: _Confidences, *, half: bool = False
) -> nn.Module:
    """The network, or one that gives the same confidences within a tolerance in clearly less CPU time of one thread.

    `confidences`: of what it puts out, N × so many. `half`: it may compute in bfloat16. It takes float32,
    N × channels × height × width.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several spin while one waits for a core, and that is CPU time, too
    try:
        return _fastest(network, wanted, confidences, _WAYS | _HALF_WAYS if half else _WAYS)
    finally:
        torch.set_num_threads(threads)


def _fastest(
    network: nn.Module, wanted: Input, confidences: _Confidences, ways: dict[str, tuple[_Change, float]]
) -> nn.Module:
    draw = torch.Generator().manual_seed(0)  # so that a start does not choose otherwise than the one before
    size = wanted.channels, wanted.height, wanted.width
    one = torch.rand(1, *size, generator=draw)
    with torch.inference_mode():
        network(one)
        slow = _once(network, [one]) > SLOW_SECONDS
        inputs = [torch.rand(batch, *size, generator=draw) for batch in (SLOW_BATCHES if slow else BATCHES)]
        candidates = {"torch's own": network}
        for name, (change, tolerance) in ways.items():
            changed = _changed(network, change, inputs, confidences, tolerance)
            if changed is not None:
                candidates[name] = changed
        seconds = dict(zip(candidates, _seconds(list(candidates.values()), inputs), strict=True))
    best = min(seconds, key=lambda name: seconds[name])
    if seconds[best] > WINS_BY * seconds["torch's own"]:
        best = "torch's own"
    measured = ", ".join(f"{name} {1e3 * it:.1f} ms" for name, it in seconds.items())
    log.info("the forward is %s; for %s images: %s", best, " and ".join(str(len(it)) for it in inputs), measured)
    return candidates[best] if best == "torch's own" else _Padded(candidates[best])


def _changed(
    network: nn.Module, change: _Change, inputs: list[Tensor], confidences: _Confidences, tolerance: float
) -> nn.Module | None:
    """The network changed, where it can be, and gives the same."""
    try:
        with warnings.catch_warnings(action="ignore"):  # TorchScript is not developed any further
            changed = change(network, inputs[-1])
        difference = max(_difference(network, changed, batch, confidences) for batch in inputs)
    except Exception as error:  # no public part of torch, or not for every network, or not on every processor
        log.info("a way to compute the forward is not for this network: %s", one_line(error))
        return None
    if difference <= tolerance:
        return changed
    log.info("a way to compute the forward differs by %.0e", difference)
    return None


class PackedLinear(nn.Module):
    """A linear layer whose weights were packed for oneDNN, by the same operators that torch's Inductor uses."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight, self._bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        # No public part of torch: where a release has these no more, `fastest_equivalent` goes on without.
        self._packed = _OPERATORS._reorder_linear_weight(self._weight, _PACKED_FOR)  # noqa: SLF001 - see above

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) == 1:  # reading the weights is all of the work then, and MKL reads them faster
            return functional.linear(inputs, self._weight, self._bias)
        outputs: Tensor = _OPERATORS._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")  # noqa: SLF001 - the same
        return outputs


class _Padded(nn.Module):
    """A network whose batches are padded to a few sizes.

    oneDNN compiles a kernel for each size and keeps it: 1.5 ms and 80 KB for each of up to 256.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = network

    def forward(self, inputs: Tensor) -> Tensor:
        missing = -len(inputs) % _step(len(inputs))
        outputs: Tensor = self._network(
            functional.pad(inputs, (0,) * (2 * inputs.dim() - 1) + (missing,)) if missing else inputs
        )
        return outputs[: len(inputs)].float()


def _step(images: int) -> int:
    """What a batch of so many is padded to a multiple of: an eighth of it, or less."""
    return max(1, 1 << max(0, images.bit_length() - 4))


def _packed(network: nn.Module, _: Tensor) -> nn.Module:
    """With packed linear layers."""
    if not any(type(module) is nn.Linear for module in network.modules()):
        raise ValueError("it has no linear layers")
    return _with_packed(copy.deepcopy(network, {id(tensor): tensor for tensor in network.parameters()}))


def _with_packed(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear:
        return PackedLinear(module)
    for name, child in module.named_children():
        setattr(module, name, _with_packed(child))
    return module


def _scripted(network: nn.Module, inputs: Tensor) -> nn.Module:
    """By TorchScript, with its optimizations."""
    return _optimized(_traced(network, inputs))


def _scripted_in_half(network: nn.Module, inputs: Tensor) -> nn.Module:
    """By TorchScript, with weights in bfloat16."""
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        traced = _traced(network, inputs)
    return _optimized(traced)  # not under autocast, which would come a second time, also for what was exempt


def _traced(network: nn.Module, inputs: Tensor) -> Any:
    if not any(parameter.dim() == _CONVOLUTIONS for parameter in network.parameters()):
        raise ValueError("it has no convolutions")
    return torch.jit.trace(network, inputs)  # type: ignore[no-untyped-call]  # torch gives no types


def _optimized(traced: Any) -> nn.Module:
    scripted: nn.Module = torch.jit.optimize_for_inference(torch.jit.freeze(traced))
    return scripted


_WAYS: dict[str, tuple[_Change, float]] = {
    "with packed weights": (_packed, TOLERANCE),
    "by TorchScript": (_scripted, TOLERANCE),
}
_HALF_WAYS: dict[str, tuple[_Change, float]] = {"by TorchScript in bfloat16": (_scripted_in_half, HALF_TOLERANCE)}


def _difference(one: nn.Module, other: nn.Module, inputs: Tensor, confidences: _Confidences) -> float:
    """The largest difference of a confidence; NaN where one of them is no number."""
    said, says = (confidences(network(inputs).float().numpy()) for network in (one, other))
    return float(np.abs(said - says).max())


def _seconds(networks: list[nn.Module], inputs: list[Tensor]) -> list[float]:
    """CPU time of each network for all inputs, in turns: the least of some rounds."""
    rounds, ends = list[list[float]](), time.monotonic() + SECONDS_MAX
    while not rounds or (len(rounds) < ROUNDS and time.monotonic() < ends):
        rounds.append([_once(network, inputs) for network in networks])
    return [min(of_network) for of_network in zip(*rounds, strict=True)]


def _once(network: nn.Module, inputs: list[Tensor]) -> float:
    started = time.process_time()
    for batch in inputs:
        network(batch)
    return time.process_time() - started
