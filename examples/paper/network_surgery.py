"""Dynamic network surgery: weights go and come back while all of them, the absent ones too, go on being trained.

Guo, Yao and Chen, *Dynamic Network Surgery for Efficient DNNs*, NeurIPS 2016, after their released code
(yiwenguo/Dynamic-Network-Surgery). There the threshold of a layer is the mean of |w| plus c standard deviations with a c
set by hand for each layer; c is not published for these networks, so the threshold is the quantile of |w| that gives the
sparsity they report, taken anew at each update: weights go on growing, and under the first one 23 times fewer are left
where they report 56. The solver is that of Caffe's LeNet: SGD at 0.01, momentum 0.9, L2 5e-4, rates falling as
(1 + 1e-4 k)^-0.75.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from examples.paper.cell import Job, one_by_one
from examples.paper.networks import network
from examples.paper.picking import metrics, seconds
from examples.paper.plain import train as train_plain
from examples.paper.variational_sparsity import measure

__all__ = ["Surgery", "operate", "quantile", "revise", "train", "update_probability"]

#: A weight goes below the one and comes back beyond the other multiple of the threshold.
_LOW, _HIGH = 0.9, 1.1


class Surgery(nn.Module):
    r"""A parametrization :math:`w \mapsto m \odot w` whose gradient reaches every w as if it were there.

    Args:
        weight: the dense weight.
        share: of the weights that are to be absent.
    """

    mask: Tensor

    def __init__(self, weight: Tensor, share: float) -> None:
        super().__init__()
        self.share = share
        self.register_buffer("mask", torch.ones_like(weight, requires_grad=False))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + (weight * self.mask - weight).detach()

    @torch.no_grad()
    def update(self, weight: Tensor) -> None:
        """Revise the mask by the quantile of |w| at ``share``."""
        revise(self.mask, weight.abs(), quantile(weight.abs(), self.share))


def quantile(size: Tensor, share: float) -> float:
    """The number below which that share of all entries lies."""
    return float(size.flatten().kthvalue(min(int(share * size.numel()) + 1, size.numel())).values)


def revise(mask: Tensor, size: Tensor, threshold: float) -> None:
    """The mask's rule: 0 where :math:`|w| \\le 0.9 t`, 1 where :math:`|w| > 1.1 t`, between them as it was."""
    mask[size <= _LOW * threshold] = 0.0
    mask[size > _HIGH * threshold] = 1.0


def update_probability(step: int, gamma: float = 1e-4, power: float = 1.0) -> float:
    """How likely the masks are updated at a step: :math:`(1 + \\gamma k)^{-p}`."""
    return (1.0 + gamma * step) ** -power


def operate(net: nn.Module, sparsity: list[float]) -> list[nn.Module]:
    """Give each layer's weight its mask, with the share of weights that is to go."""
    layers = [m for m in net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for layer, share in zip(layers, sparsity, strict=True):
        parametrize.register_parametrization(layer, "weight", Surgery(layer.weight.detach(), share))
    return layers


@one_by_one
def train(job: Job) -> dict[str, Any]:
    """Train densely, then under surgery, both by the solver of Caffe's LeNet; error and sparsity at the end."""
    recipe = job.recipe
    net = network(job.cell.size).to(job.device)
    dense = max(int(recipe["epochs"] * recipe["dense"]), 1)
    steps = -(-len(job.data.x) // recipe["batch_size"])

    def solver(net: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(net.parameters(), recipe["lr"], recipe["momentum"], weight_decay=recipe["weight_decay"])

    def inverse(epoch: int, epochs: int) -> float:
        return (1.0 + 1e-4 * steps * epoch) ** -0.75

    shared = {"optimizer": solver, "batch_size": recipe["batch_size"], "lr_schedule": inverse, "measure": measure}
    first = train_plain(net, job, phase="dense", epochs=dense, **shared)
    layers = operate(net, recipe["sparsity"])

    def after_step(step: int) -> None:
        if step < recipe["last_update"] and torch.rand((), device="cpu") < update_probability(step):
            for layer in layers:
                layer.parametrizations["weight"][0].update(layer.parametrizations["weight"].original)

    rest = max(recipe["epochs"] - dense, 1)
    second = train_plain(net, job, phase="surgery", epochs=rest, after_step=after_step, **shared)
    return {**metrics(net, job.data, measure, second, begin=0.5), "seconds": seconds(first, second)}
