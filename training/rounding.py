"""Rounds the weights of a trained network to bfloat16 once, instead of in each worker that computes in bfloat16."""

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights


def rounded(network: nn.Module) -> nn.Module:
    """A copy of a network whose weights bfloat16 represents exactly, so that it nearly agrees with float32.

    In an `nn.Sequential`, a batch norm after a convolution is folded into the convolution's weights before these are
    rounded; the batch norm then only adds its bias.
    """
    network = copy.deepcopy(network)
    for module in network.modules():
        if isinstance(module, nn.Sequential):
            for layer, norm in pairwise(module):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    _fold(layer, norm)
        elif isinstance(module, nn.Linear):
            module.weight.data, module.bias.data = _round(module.weight), _round(module.bias)
    return network


@torch.no_grad()
def _fold(layer: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
    assert layer.bias is None
    assert norm.running_mean is not None
    assert norm.running_var is not None
    weight, bias = fuse_conv_bn_weights(
        layer.weight, None, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
    )
    layer.weight.copy_(_round(weight))
    norm.running_mean.zero_()
    norm.running_var.fill_(1)
    norm.weight.fill_((1 + norm.eps) ** 0.5)
    norm.bias.copy_(_round(bias))


def _round(values: Tensor) -> Tensor:
    return values.detach().bfloat16().float()
