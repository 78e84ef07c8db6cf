"""Fully connected ReLU networks (Table 1 of Liu et al. 2019: three hidden layers of one width)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import nn

__all__ = ["mlp"]


def mlp(inputs: int, hidden: Sequence[int], outputs: int) -> nn.Sequential:
    """A ReLU network on flattened inputs, with He's initialisation and biases of 0.

    Args:
        inputs: numbers in one datum.
        hidden: widths of the hidden layers.
        outputs: classes.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for fan_in, fan_out in pairwise([inputs, *hidden, outputs]):
        linear = nn.Linear(fan_in, fan_out)
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
        nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])
