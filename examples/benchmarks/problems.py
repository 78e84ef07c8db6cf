"""What is timed: networks of the paper on random images, as many as a training set has."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models import lenet_5_caffe, lenet_300_100, mlp

__all__ = ["NETS", "Problem", "dense", "problem"]

#: N, the size of the training set that a batch stands for.
NUM_DATA = 60_000


@dataclass(frozen=True)
class Problem:
    """One batch and a network for it, new at each call of ``net``."""

    net: Callable[[], nn.Sequential]
    x: Tensor
    y: Tensor
    num_data: int = NUM_DATA

    @property
    def scale(self) -> float:
        """N/B, the factor of the batch's log-likelihood."""
        return self.num_data / len(self.x)

    @property
    def device(self) -> torch.device:
        """Where the batch is."""
        return self.x.device

    def layers(self) -> list[nn.Module]:
        """The modules of a new network in their order, on the device."""
        return list(self.net().to(self.device))


def dense(width: int, depth: int) -> Callable[[], nn.Sequential]:
    """784 inputs, ``depth`` hidden layers of ``width`` units, 10 classes."""
    return lambda: mlp(784, [width] * depth, 10)


#: The networks of the tables, by the name that is printed.
NETS: dict[str, Callable[[], nn.Sequential]] = {
    "784-300-100-10": lenet_300_100,
    "784-1060x3-10": dense(1060, 3),
    "lenet-5-caffe": lenet_5_caffe,
}


def problem(net: Callable[[], nn.Sequential], batch: int, device: torch.device) -> Problem:
    """Random images of 28x28 pixels and labels for a network."""
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(batch, 1, 28, 28, generator=generator), torch.randint(10, (batch,), generator=generator)
    return Problem(net, x.to(device), y.to(device))
