"""The networks on MNIST by the name of their size: Table 1's by the units of a hidden layer, and the LeNets."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import nn

from models import lenet_5_caffe, lenet_300_100, lenet_500_300, mlp

__all__ = ["network"]

_LENETS: Mapping[str, Callable[[], nn.Sequential]] = {
    "lenet-300-100": lenet_300_100,
    "lenet-500-300": lenet_500_300,
    "lenet-5": lenet_5_caffe,
}


def network(size: str) -> nn.Sequential:
    """An untrained network: 784-n-n-n-10 with ReLU for a number n, else the LeNet of that name.

    Raises:
        ValueError: for another name.
    """
    if size.isdigit():
        return mlp(784, (int(size),) * 3, 10)
    if size not in _LENETS:
        raise ValueError(f"size={size!r} is no network: use a number of units, or one of {', '.join(_LENETS)}")
    return _LENETS[size]()
