"""Networks with a gate on every unit: on the inputs of an MLP, after every nonlinearity, and on what is flattened."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import singledispatch

import torch
from torch import Tensor, nn

from pyro_vbd.noise import Gate, LogNormalGate

__all__ = ["RECIPE", "factor", "folded", "gated"]

#: Of a quarter of the epochs without gates, then with them; its rate falls to 0 in the second half of either.
RECIPE = {"epochs": 200, "batch_size": 100, "lr": 1e-3, "dense": 0.25, "decay_from": 0.5, "kl_weight": 1.0}


def gated(net: nn.Sequential, gate: Callable[[int], nn.Module]) -> nn.Sequential:
    """A LeNet with a gate in front of each layer with weights, but for images in front of a convolution.

    That is behind the nonlinearity and the pooling of the layer before. Between a convolution and a linear layer stand
    two: on the channels and on the numbers that they are flattened to, as Table 5 counts them.

    Args:
        net: layers in order; used, not copied.
        gate: makes the gate of a number of units or channels.
    """
    modules: list[nn.Module] = []
    channels = 0  # of the last convolution
    for module in net:
        if isinstance(module, nn.Flatten) and channels:
            modules.append(gate(channels))
        elif isinstance(module, nn.Linear):
            modules.append(gate(module.in_features))
        elif isinstance(module, nn.Conv2d):
            if channels:
                modules.append(gate(channels))
            channels = module.out_channels
        modules.append(module)
    return nn.Sequential(*modules)


@singledispatch
def factor(module: nn.Module) -> Tensor:
    """What a gate multiplies its units by in evaluation mode, of shape ``(units,)``; 0 where one is closed."""
    raise TypeError(f"{type(module).__name__} is no gate")


@factor.register
def _(module: Gate) -> Tensor:
    return module.weight.detach()


@factor.register
def _(module: LogNormalGate) -> Tensor:
    return (module.mean() * module.mask(module.threshold)).detach()


@torch.no_grad()
def folded(net: nn.Sequential) -> nn.Sequential:
    """The plain network that computes the same in evaluation mode: each gate's factors in the weights behind it."""
    modules: list[nn.Module] = []
    pending: list[Tensor] = []  # factors on the inputs of the next layer with weights
    for module in net:
        if isinstance(module, Gate | LogNormalGate):
            pending.append(factor(module))
            continue
        module = copy.deepcopy(module)
        if isinstance(module, nn.Linear | nn.Conv2d):
            for factors in pending:
                repeats = module.weight.size(1) // len(factors)  # a channel's factor, for each of its places
                shape = (1, -1, *(1,) * (module.weight.dim() - 2))
                module.weight.mul_(factors.repeat_interleave(repeats).reshape(shape))
            pending = []
        modules.append(module)
    return nn.Sequential(*modules)
