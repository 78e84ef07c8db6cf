r"""Soft weight-sharing: weights retrained under a mixture of Gaussians, and then set to the mean of their component.

Ullrich, Meeds and Welling, *Soft Weight-Sharing for Neural Network Compression*, ICLR 2017, after the tutorial released
with it (KarenUllrich/Tutorial-SoftWeightSharingForNNCompression):

.. math:: L = -\log p(D | w) - \tau \sum_i \log \sum_j \pi_j N(w_i | \mu_j, \sigma_j^2)

with :math:`\mu_0 = 0` and :math:`\pi_0` fixed. The tutorial has tau = 0.003, pi_0 = 0.99 and 16 components.
"""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.paper.cell import Job, one_by_one
from examples.paper.networks import network
from examples.paper.picking import metrics, seconds
from examples.paper.plain import adam
from examples.paper.plain import train as train_plain
from examples.paper.variational_sparsity import measure
from pyro_vbd.training.schedules import linear_decay

__all__ = ["MixturePrior", "Shared", "train"]

#: Gamma hyperpriors (shape, rate) on the precision: of the component at 0, and of the others.
_ZERO_HYPERPRIOR, _HYPERPRIOR = (5e3, 2.0), (2.5e2, 0.1)
#: Weights in one piece of the mixture's log-density, which has a column for each component.
_PIECE = 1 << 16


class MixturePrior(nn.Module):
    r"""A mixture of Gaussians over single weights, the first of mean 0 and proportion ``pi_zero``, the rest learned.

    Args:
        components: J, the one at 0 included.
        pi_zero: the fixed proportion of the first.
        reach: the other means start evenly spaced in [-reach, reach].
        deviation: where the standard deviations start.
    """

    def __init__(self, components: int = 17, pi_zero: float = 0.999, reach: float = 0.6, deviation: float = 0.25) -> None:
        super().__init__()
        self.log_pi_zero, self.log_rest = math.log(pi_zero), math.log1p(-pi_zero)
        self.means = nn.Parameter(torch.linspace(-reach, reach, components - 1))
        self.log_precision = nn.Parameter(torch.full((components,), -2.0 * math.log(deviation)))
        self.logits = nn.Parameter(torch.zeros(components - 1))

    def components(self) -> tuple[Tensor, Tensor, Tensor]:
        """Means, log precisions and log proportions, each of shape ``(J,)``."""
        means = torch.cat([self.means.new_zeros(1), self.means])
        log_pi = self.log_rest + F.log_softmax(self.logits, 0)
        return means, self.log_precision, torch.cat([log_pi.new_full((1,), self.log_pi_zero), log_pi])

    def joint(self, weights: Tensor) -> Tensor:
        r""":math:`\log \pi_j N(w_i | \mu_j, \sigma_j^2)`, of shape ``(weights, J)``."""
        means, log_precision, log_pi = self.components()
        squares = (weights.flatten().unsqueeze(1) - means).square()
        return log_pi + 0.5 * (log_precision - math.log(2 * math.pi)) - 0.5 * log_precision.exp() * squares

    def log_prob(self, weights: Tensor) -> Tensor:
        """The log-density of all weights together, in nats."""
        pieces = weights.flatten().split(_PIECE)
        return torch.stack([self.joint(piece).logsumexp(1).sum() for piece in pieces]).sum()

    def log_hyperprior(self) -> Tensor:
        """The log-density of the precisions under their Gamma hyperpriors, up to a constant."""
        shape, rate = (self.log_precision.new_tensor(pair) for pair in zip(_ZERO_HYPERPRIOR, _HYPERPRIOR, strict=True))
        pick = (torch.arange(len(self.log_precision), device=shape.device) > 0).long()
        return ((shape[pick] - 1) * self.log_precision - rate[pick] * self.log_precision.exp()).sum()

    @torch.no_grad()
    def quantise(self, weights: Tensor) -> Tensor:
        """Each weight at the mean of the component that most likely made it; 0 where that is the first."""
        means, _, _ = self.components()
        chosen = torch.cat([self.joint(piece).argmax(1) for piece in weights.flatten().split(_PIECE)])
        return means[chosen].reshape(weights.shape)


class Shared(nn.Module):
    """A network and its mixture, trained together."""

    def __init__(self, net: nn.Module, prior: MixturePrior) -> None:
        super().__init__()
        self.net, self.prior = net, prior

    def weights(self) -> list[nn.Parameter]:
        """The weights that share values: those of the layers, without biases."""
        return [m.weight for m in self.net.modules() if isinstance(m, nn.Linear | nn.Conv2d)]

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    def loss(self, x: Tensor, y: Tensor, tau: float, num_data: int) -> Tensor:
        """L of this file over the number of data: nats per datum."""
        prior = sum((self.prior.log_prob(w) for w in self.weights()), start=self.prior.log_hyperprior())
        return F.cross_entropy(self.net(x), y) - tau / num_data * prior

    def num_values(self) -> int:
        """How many different weights the quantised network has."""
        return len({value for weight in self.weights() for value in self.prior.quantise(weight).unique().tolist()})

    def quantised(self) -> nn.Module:
        """The network with every weight at the mean of its component."""
        net = copy.deepcopy(self.net)
        for layer in net.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.weight.data = self.prior.quantise(layer.weight.data)
        return net


@one_by_one
def train(job: Job) -> dict[str, Any]:
    """Train densely, then under the mixture; error and sparsity of the quantised network."""
    recipe = job.recipe
    shared = Shared(network(job.cell.size), MixturePrior(recipe["components"], recipe["pi_zero"]))
    dense = max(int(recipe["epochs"] * recipe["dense"]), 1)
    options = {"batch_size": recipe["batch_size"], "measure": measure}
    decay = linear_decay(0.5)
    # L2 brings the weights that nothing needs near 0, where the fixed component waits for them
    first = train_plain(
        shared.net,
        job,
        phase="dense",
        epochs=dense,
        optimizer=adam(recipe["lr"], recipe["weight_decay"]),
        lr_schedule=decay,
        **options,
    )

    def optimizer(module: nn.Module) -> torch.optim.Optimizer:
        groups = [
            {"params": shared.net.parameters(), "lr": recipe["retrain_lr"]},
            {"params": [shared.prior.means], "lr": recipe["means_lr"]},
            {"params": [shared.prior.log_precision, shared.prior.logits], "lr": recipe["mixture_lr"]},
        ]
        return torch.optim.Adam(groups, fused=True)

    second = train_plain(
        shared,
        job,
        phase="mixture",
        epochs=max(recipe["epochs"] - dense, 1),
        optimizer=optimizer,
        loss=lambda net, x, y: shared.loss(x, y, recipe["tau"], len(job.data.x)),
        batch_size=recipe["batch_size"],
        measure=lambda net, x, y: measure(shared.quantised(), x, y),
    )
    found = metrics(shared, job.data, lambda net, x, y: measure(shared.quantised(), x, y), second, begin=0.75)
    return {**found, "values": shared.num_values(), "seconds": seconds(first, second)}
