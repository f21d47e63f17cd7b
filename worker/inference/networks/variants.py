"""Other ways to compute a network on the CPU. `optimize.py` chooses among them by measurement.

MKL packs the weights of a linear layer anew in each forward pass, which takes a third of the time for a batch of 4;
oneDNN, a part of torch, packs them once. TorchScript folds the batch normalization into the convolution before it,
fuses what follows, and lays out weights for oneDNN. Channels last, the layout of decoded images, is faster still for
depthwise convolutions, but not for all networks, and some accept only contiguous inputs. A CPU with instructions for
bfloat16 computes a convolution in little more than half the time.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.nn import functional

TOLERANCE, HALF_TOLERANCE = 1e-5, 1e-2  # of a confidence, in float32 and in bfloat16
_OPERATORS = torch.ops.mkldnn
_CONVOLUTION_DIMENSIONS = 4  # of its weights
_PACKED_FOR_BATCH = 16  # the packing is best for this batch size, and good for all but 1
_PYTHON_FUNCTIONS = (torch, torch._C._nn, Tensor)  # noqa: SLF001 - where torch has the functions of its operators


class Variant(NamedTuple):
    """Another way to compute a network."""

    name: str
    build: Callable[[nn.Module, Tensor], nn.Module]
    """Makes it of the network and example inputs. Raises any error if that is not possible."""
    tolerance: float
    """By how much a confidence may differ."""
    half: bool = False
    """Whether it computes in bfloat16."""


def _packed_weights(network: nn.Module, _: Tensor) -> nn.Module:
    if not any(type(module) is nn.Linear for module in network.modules()):
        raise ValueError("the network has no linear layers")
    packed = _pack_linear_layers(copy.deepcopy(network, {id(tensor): tensor for tensor in network.parameters()}))
    return InLayout(packed)


def _channels_last(network: nn.Module, _: Tensor) -> nn.Module:
    _check_convolutions(network)
    return InLayout(_with_channels_last(network), torch.channels_last)


def _torchscript(network: nn.Module, inputs: Tensor, *, half: bool = False) -> nn.Module:
    traced = _trace(network, inputs.contiguous(), half=half)
    return InLayout(torch.jit.optimize_for_inference(torch.jit.freeze(traced)))


def _torchscript_channels_last(network: nn.Module, inputs: Tensor, *, half: bool = False) -> nn.Module:
    traced = _trace(_with_channels_last(network), inputs.contiguous(memory_format=torch.channels_last), half=half)
    return InLayout(torch.jit.freeze(traced), torch.channels_last)


VARIANTS = (
    Variant("packed weights", _packed_weights, TOLERANCE),
    Variant("channels last", _channels_last, TOLERANCE),
    Variant("TorchScript", _torchscript, TOLERANCE),
    Variant("TorchScript, channels last", _torchscript_channels_last, TOLERANCE),
    Variant("TorchScript in bfloat16", partial(_torchscript, half=True), HALF_TOLERANCE, half=True),
    Variant(
        "TorchScript, channels last, in bfloat16",
        partial(_torchscript_channels_last, half=True),
        HALF_TOLERANCE,
        half=True,
    ),
)


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


def _pack_linear_layers(module: nn.Module) -> nn.Module:
    if type(module) is nn.Linear:
        return PackedLinear(module)
    for name, child in module.named_children():
        setattr(module, name, _pack_linear_layers(child))
    return module


class InLayout(nn.Module):
    """A network whose inputs are brought into the layout that it needs: a batch of decoded images has channels last."""

    def __init__(self, network: nn.Module, layout: torch.memory_format = torch.contiguous_format) -> None:
        super().__init__()
        self._network = network
        self._layout = layout

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self._network(inputs.contiguous(memory_format=self._layout))
        return outputs


def _with_channels_last(network: nn.Module) -> nn.Module:
    """A copy whose convolutions have their weights in this layout; other weights are shared."""
    layers = {
        id(tensor): nn.Parameter(tensor.detach().contiguous(memory_format=torch.channels_last), requires_grad=False)
        for tensor in network.parameters()
        if tensor.dim() == _CONVOLUTION_DIMENSIONS
    }
    shared = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, shared | layers)


def _check_convolutions(network: nn.Module) -> None:
    if not any(parameter.dim() == _CONVOLUTION_DIMENSIONS for parameter in network.parameters()):
        raise ValueError("the network has no convolutions")


def _trace(network: nn.Module, inputs: Tensor, *, half: bool) -> Any:
    _check_convolutions(network)
    traceable = _traceable(network) if isinstance(network, GraphModule) else network
    # Autocast ends before the trace is optimized: it would apply again, also to the layers that are exempt.
    with torch.autocast("cpu", torch.bfloat16, enabled=half, cache_enabled=False):
        return torch.jit.trace(traceable, inputs)  # type: ignore[no-untyped-call]  # torch gives no types


def _traceable(program: GraphModule) -> nn.Module:
    """An exported program with torch's functions in place of its operators, which TorchScript cannot trace.

    Raises:
        ValueError: torch has no function for one of its operators.
    """
    graph = copy.deepcopy(program.graph)
    for node in graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):  # noqa: SLF001 - the type has no public name
            node.target = _function_of(node.target.overloadpacket.__name__)
    network = GraphModule(program, graph)
    for module in network.modules():  # an exported program refuses eval(): it is in evaluation mode as it is
        module.training = False
    return network


def _function_of(operator: str) -> Callable[..., Any]:
    if operator == "sym_size":
        return Tensor.size
    for functions in _PYTHON_FUNCTIONS:
        if hasattr(functions, operator):
            function: Callable[..., Any] = getattr(functions, operator)
            return function
    raise ValueError(f"torch has no function for {operator}")
