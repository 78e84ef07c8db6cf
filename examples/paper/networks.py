"""The networks on MNIST by the name of their size: Table 1's by the units of a hidden layer, and the LeNets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import nn

from models import lenet_5_caffe, lenet_300_100, lenet_500_300, mlp

__all__ = ["WIDTHS", "network"]

WIDTHS = ("100", "340", "580", "820", "1060")

_MAKERS: Mapping[str, Callable[[], nn.Sequential]] = {
    **{width: partial(mlp, 784, (int(width),) * 3, 10) for width in WIDTHS},
    "lenet-300-100": lenet_300_100,
    "lenet-500-300": lenet_500_300,
    "lenet-5": lenet_5_caffe,
}


def network(size: str) -> nn.Sequential:
    """An untrained network: 784-n-n-n-10 with ReLU for a number n, else the LeNet of that name."""
    return _MAKERS[size]()
