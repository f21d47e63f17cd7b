"""How a network's forward is computed: by torch as ever, or from packed weights where that was measured to be faster.

MKL packs a linear layer's weights anew at each forward, which for a batch of 4 is a third of its time. oneDNN, which is
in torch, too, packs them once.
"""

import copy
import logging
import time

import torch
from torch import Tensor, nn
from torch.nn import functional

from jobs.models import Input

log = logging.getLogger(__name__)

TOLERANCE = 1e-5  # of a probability
WINS_BY = 0.95  # the packed one's CPU time by the plain one's, at most: what is no clear gain is not worth a difference
BATCHES = (16, 64)
ROUNDS = 5
SECONDS_MAX = 0.15  # for all rounds; the first one is always run to its end
_OPERATORS = torch.ops.mkldnn
_PACKED_FOR = 16  # the batch that the packing is best for; it is good for any but 1


def fastest(network: nn.Module, wanted: Input) -> nn.Module:
    """The network, or one that gives the same probabilities within `TOLERANCE` in clearly less CPU time.

    It takes float32, N × (channels · height · width), and gives logits.
    """
    inputs = [torch.rand(batch, wanted.channels * wanted.height * wanted.width) for batch in BATCHES]
    try:
        packed = _packed(copy.deepcopy(network, {id(tensor): tensor for tensor in network.parameters()}))
        with torch.inference_mode():
            difference = max(_difference(network, packed, batch) for batch in inputs)
            seconds = _seconds([network, packed], inputs)
    except Exception:  # the packing is no public part of torch, and may lack on a processor
        log.warning("weights could not be packed; the forward is torch's own", exc_info=True)
        return network
    is_better = difference <= TOLERANCE and seconds[1] <= WINS_BY * seconds[0]
    log.info(
        "the forward is %s: with packed weights %.1f ms for %s images, else %.1f ms; largest difference %.0e",
        "that with packed weights" if is_better else "torch's own",
        1e3 * seconds[1],
        " and ".join(map(str, BATCHES)),
        1e3 * seconds[0],
        difference,
    )
    return _Padded(packed) if is_better else network


class PackedLinear(nn.Module):
    """A linear layer whose weights were packed for oneDNN, by the same operators that torch's Inductor uses."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self._weight, self._bias = linear.weight.detach(), None if linear.bias is None else linear.bias.detach()
        self._packed = _OPERATORS._reorder_linear_weight(self._weight, _PACKED_FOR)  # noqa: SLF001

    def forward(self, inputs: Tensor) -> Tensor:
        if len(inputs) == 1:  # reading the weights is all of the work then, and MKL reads them faster
            return functional.linear(inputs, self._weight, self._bias)
        outputs: Tensor = _OPERATORS._linear_pointwise(inputs, self._packed, self._bias, "none", [], "")  # noqa: SLF001
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
        outputs: Tensor = self._network(functional.pad(inputs, (0, 0, 0, missing)) if missing else inputs)
        return outputs[: len(inputs)]


def _step(images: int) -> int:
    """What a batch of so many is padded to a multiple of: an eighth of it, or less."""
    return max(1, 1 << max(0, images.bit_length() - 4))


def _packed(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear:
        return PackedLinear(module)
    for name, child in module.named_children():
        setattr(module, name, _packed(child))
    return module


def _difference(one: nn.Module, other: nn.Module, inputs: Tensor) -> float:
    """The largest difference of a probability; NaN where one of them is no number."""
    return float((torch.softmax(one(inputs), dim=1) - torch.softmax(other(inputs), dim=1)).abs().max())


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
